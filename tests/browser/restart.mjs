// The server dies under an open page and comes back: nothing that was said to be saved is missing, and what was not is sent.
// Says "now: kill the server" and "now: start the server" to whoever runs it.
//
//   node restart.mjs --url http://127.0.0.1:8080 --credentials ../../data/credentials.json --out /tmp/shots
import assert from 'node:assert/strict';
import * as t from './workspace.mjs';

await t.run('restart', async (test) => {
  const page = await t.browser();
  let place;

  await test('what is typed is saved', async () => {
    await t.signIn(page);
    place = await t.createDocument(page);
    await page.locator('.tiptap').click();
    await page.keyboard.type('Saved before the end. ');
    await t.becomes(page, 'saved');
  });

  await test('the page says that the server is gone, and counts what it holds itself', async () => {
    console.log('now: kill the server');
    await t.becomes(page, 'offline');
    await page.keyboard.type('Typed without a server.');
    await t.eventually(async () => assert.match(await page.locator('.save-status').innerText(), /23 unsaved/));
  });

  await test('the server comes back, and all of it is saved', async () => {
    console.log('now: start the server');
    await t.eventually(async () => assert.equal(await t.saveState(page), 'saved'), 60_000);
    const reader = await t.browser();
    await t.signIn(reader, place);
    await reader.locator('.tiptap').waitFor();
    await t.eventually(async () => assert.equal(await t.textOf(reader), 'Saved before the end. Typed without a server.'));
    t.assertNoComplaints(page, reader);
  });
});
