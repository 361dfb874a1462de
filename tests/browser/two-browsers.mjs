// Two browsers, one document: both type, each sees the other's caret and name, and "Saved" is said when it is true.
//
//   node two-browsers.mjs --url http://127.0.0.1:8080 --credentials ../../data/credentials.json --out /tmp/shots
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import * as t from './workspace.mjs';

const WINDOW = { width: 760, height: 720 };

await t.run('two browsers', async (test) => {
  const ada = await t.browser({ ...WINDOW, deviceScaleFactor: 2 });
  const grace = await t.browser({ ...WINDOW, deviceScaleFactor: 2 });
  const adasSocket = await t.gateSocket(ada);
  let place;

  await test('one signs in and creates a document, the other opens its link, which asks for a password', async () => {
    await t.signIn(ada);
    await t.callOneself(ada, 'Ada Lovelace', 1);
    place = await t.createDocument(ada);
    await t.retitle(ada, 'Field notes');
    await t.signIn(grace, place);
    await grace.locator('.tiptap').waitFor();
    await t.callOneself(grace, 'Grace Hopper', 3);
    await t.eventually(async () => assert.equal(await grace.getByLabel('Title', { exact: true }).inputValue(), 'Field notes'));
  });

  await test('both type, both see everything', async () => {
    await ada.locator('.tiptap').click();
    await ada.keyboard.type('# Field notes\nTwo people write here at once. ');
    await t.eventually(async () => assert.match(await t.textOf(grace), /write here at once/));
    await grace.locator('.tiptap').click();
    await grace.keyboard.press('Control+End');
    await grace.keyboard.press('Enter');
    await grace.keyboard.type('## What we saw\n- Every change is committed before anybody sees it\nBoth cursors carry a name');
    await ada.locator('.tiptap p', { hasText: 'Two people' }).click();
    await ada.keyboard.press('End');
    await ada.keyboard.type('Nobody waits for the other.');
    await t.eventually(async () => {
      const text = await t.textOf(ada);
      assert.match(text, /Nobody waits for the other\./);
      assert.match(text, /Both cursors carry a name/);
      assert.equal(text, await t.textOf(grace));
    });
  });

  await test('each sees the caret of the other, with the name', async () => {
    await t.eventually(async () => assert.deepEqual(await t.caretNames(ada), ['Grace Hopper']));
    await t.eventually(async () => assert.deepEqual(await t.caretNames(grace), ['Ada Lovelace']));
    await grace.getByRole('img', { name: 'Also here: Ada Lovelace' }).waitFor();
  });

  await t.becomes(ada, 'saved');
  await t.becomes(grace, 'saved');
  for (const page of [ada, grace]) for (const key of ['ArrowLeft', 'ArrowRight']) await page.keyboard.press(key); // Names fade at rest.
  await ada.waitForTimeout(200);
  await picture(ada, grace);

  await test('"Saved" waits for the confirmation: the echo of the change alone does not bring it', async () => {
    adasSocket.hold(t.isConfirmation);
    await ada.keyboard.type(' Held.');
    await t.eventually(async () => assert.match(await t.textOf(grace), /Held\./)); // Committed, and shown to others …
    await t.eventually(() => assert.ok(adasSocket.heldCount() > 0));
    await ada.waitForTimeout(1_500);
    assert.equal(await t.saveState(ada), 'saving'); // … but Ada was not told yet.
    adasSocket.release();
    await t.becomes(ada, 'saved');
  });

  await test('what is said to be saved can be read from the server', async () => {
    await ada.keyboard.type(' Kept.');
    await t.becomes(ada, 'saving');
    await t.becomes(ada, 'saved');
    const { status, text } = await t.rest(ada, 'GET', `/v1/documents/${place.split('/').pop()}/content`, { accept: 'text/plain' });
    assert.equal(status, 200);
    assert.match(text, /Kept\./);
  });

  await test('offline, the page counts what is not saved; back again, it is sent and confirmed', async () => {
    await adasSocket.cut();
    await t.becomes(ada, 'offline');
    await ada.keyboard.type(' Adrift.');
    await t.eventually(async () => assert.match(await ada.locator('.save-status').innerText(), /Offline · 8 unsaved/));
    await grace.keyboard.type(' Meanwhile.');
    assert.doesNotMatch(await t.textOf(grace), /Adrift/);
    adasSocket.mend();
    await t.becomes(ada, 'saved');
    await t.eventually(async () => {
      assert.match(await t.textOf(grace), /Adrift\./);
      assert.match(await t.textOf(ada), /Meanwhile\./);
    });
  });

  await test('undo takes back what oneself did, not what the other did', async () => {
    await ada.waitForTimeout(600); // Yjs joins changes within half a second into one step.
    await ada.keyboard.type(' Mistake.');
    await t.eventually(async () => assert.match(await t.textOf(grace), /Mistake\./));
    await grace.keyboard.type(' Stays.');
    await t.eventually(async () => assert.match(await t.textOf(ada), /Stays\./));
    await ada.getByRole('button', { name: 'Undo' }).click();
    await t.eventually(async () => {
      const text = await t.textOf(grace);
      assert.doesNotMatch(text, /Mistake\./);
      assert.match(text, /Stays\./);
    });
  });

  await test('who leaves is gone at once', async () => {
    await grace.goto('about:blank');
    await t.eventually(async () => assert.deepEqual(await t.caretNames(ada), []));
  });

  t.assertNoComplaints(ada, grace);
});

/** Both windows side by side: the picture in the README. */
async function picture(...pages) {
  const shots = [];
  for (const page of pages) shots.push((await page.screenshot({ caret: 'initial' })).toString('base64'));
  const canvas = await t.browser({ width: WINDOW.width * 2 + 120, height: WINDOW.height + 80, deviceScaleFactor: 1 });
  await canvas.setContent(`<style>
      body { margin: 0; display: flex; gap: 40px; padding: 40px; background: linear-gradient(120deg, #e4e2fb, #d9efe8); }
      img { width: ${WINDOW.width}px; border-radius: 14px; box-shadow: 0 2px 4px #1a1a3018, 0 18px 50px #1a1a3030; }
    </style>${shots.map((shot) => `<img src="data:image/png;base64,${shot}">`).join('')}`);
  await canvas.waitForFunction(() => [...document.images].every((image) => image.complete));
  fs.writeFileSync(path.join(t.out, 'two-cursors.png'), await canvas.screenshot());
}
