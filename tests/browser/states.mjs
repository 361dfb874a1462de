// The page when things go wrong, on a phone, in the dark, and by keyboard alone.
//
//   node states.mjs --url http://127.0.0.1:8080 --credentials ../../data/credentials.json --out /tmp/shots
import assert from 'node:assert/strict';
import path from 'node:path';
import * as Y from 'yjs';
import * as t from './workspace.mjs';

const shot = async (page, name) => {
  await page.screenshot({ path: path.join(t.out, `${name}.png`), caret: 'initial' });
  await t.assertAccessible(page);
};
const noSideScroll = async (page) => assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), 'nothing sticks out to the side');

await t.run('states', async (test) => {
  const page = await t.browser();
  const phone = await t.browser({ width: 390, height: 780, deviceScaleFactor: 2, hasTouch: true, isMobile: true, colorScheme: 'dark' });
  const pagesSocket = await t.gateSocket(page);
  let place;

  await test('a wrong password is told, and the right one helps', async () => {
    await t.signIn(page, '/', 'not the password');
    await page.getByRole('alert').filter({ hasText: 'do not fit together' }).waitFor();
    await shot(page, 'sign-in-refused');
    await t.signIn(page);
    await page.getByRole('heading', { name: 'Documents' }).waitFor();
  });

  await test('the demo says where its password is', async () => {
    await phone.goto(t.url);
    await phone.getByText('credentials.json').waitFor();
    assert.equal(await phone.getByLabel('Workspace').inputValue(), 'demo');
    assert.equal(await phone.getByLabel('E-mail').inputValue(), 'admin@demo.local');
    await shot(phone, 'phone-sign-in');
  });

  await test('code is written together, with colours and carets', async () => {
    place = await t.createCodeFile(page, 'prime.ts');
    await page.locator('.cm-content').click();
    await page.keyboard.type('// Sieve\nexport function primes(below: number): number[] {\nconst found = [2, 3];\nreturn found;', { delay: 5 });
    await t.signIn(phone, place);
    await phone.locator('.cm-content').waitFor();
    await t.eventually(async () => assert.match(await t.textOf(phone), /return found;/));
    await phone.locator('.cm-line').nth(2).click();
    await t.eventually(async () => assert.equal((await t.caretNames(page)).length, 1));
    await t.eventually(async () => assert.equal((await t.caretNames(phone)).length, 1));
    assert.ok(await page.locator('.cm-line span[class]').count(), 'words have colours');
    await t.becomes(page, 'saved');
    await noSideScroll(phone);
    await shot(page, 'code');
    await shot(phone, 'phone-code-dark');
  });

  await test('undo in code takes back what oneself did', async () => {
    await phone.keyboard.press('End');
    await phone.keyboard.type(' // sieve later');
    await t.eventually(async () => assert.match(await t.textOf(page), /sieve later/));
    await page.getByRole('button', { name: 'Undo' }).click();
    await t.eventually(async () => {
      const text = await t.textOf(page);
      assert.doesNotMatch(text, /return found/);
      assert.match(text, /sieve later/);
    });
    await page.getByRole('button', { name: 'Redo' }).click();
    await t.eventually(async () => assert.match(await t.textOf(page), /return found/));
  });

  await test('a document that is deleted under its readers keeps its text on their screens, and comes back', async () => {
    await phone.getByRole('link', { name: 'All documents' }).click();
    await phone.getByRole('button', { name: 'Actions for prime.ts' }).first().click();
    await phone.getByRole('menuitem', { name: 'Delete' }).click();
    await phone.getByText('was deleted').waitFor();
    await shot(phone, 'phone-deleted');
    await page.getByRole('alert').filter({ hasText: 'This document was deleted' }).waitFor();
    assert.match(await t.textOf(page), /sieve later/);
    await shot(page, 'deleted-while-open');
    await phone.getByRole('button', { name: 'Undo' }).click();
    await page.getByRole('button', { name: 'Restore' }).click();
    await t.becomes(page, 'saved');
    await page.locator('.cm-content').click();
    await page.keyboard.type('// back\n');
    await t.becomes(page, 'saving');
    await t.becomes(page, 'saved');
  });

  await test('what was deleted long ago is found and restored too', async () => {
    await phone.getByRole('button', { name: 'Actions for prime.ts' }).first().click();
    await phone.getByRole('menuitem', { name: 'Delete' }).click();
    await phone.getByText('was deleted').last().waitFor();
    await phone.getByText('Deleted documents').click();
    await phone.getByRole('button', { name: 'Restore prime.ts' }).first().click();
    await phone.getByRole('link', { name: 'prime.ts' }).first().waitFor();
  });

  await test('the list finds by title, renames, and says when it finds nothing', async () => {
    await page.getByRole('link', { name: 'All documents' }).click();
    await t.createDocument(page);
    await page.getByRole('link', { name: 'All documents' }).click();
    await page.getByRole('button', { name: 'Actions for Untitled' }).first().click();
    await page.getByRole('menuitem', { name: 'Rename' }).click();
    await page.getByLabel('Title', { exact: true }).fill('Meeting of the gardeners');
    await page.getByRole('button', { name: 'Rename' }).click();
    await page.getByRole('link', { name: 'Meeting of the gardeners' }).first().waitFor();
    await shot(page, 'documents');
    await page.getByLabel('Search by title').fill('garden');
    await t.eventually(async () => assert.equal(await page.getByRole('link', { name: 'prime.ts' }).count(), 0));
    await page.getByLabel('Search by title').fill('zebra');
    await page.getByText('No document’s title contains').waitFor();
    await page.getByLabel('Search by title').fill('');
    await noSideScroll(phone);
    await shot(phone, 'phone-documents-dark');
  });

  await test('a link is shared without a secret', async () => {
    await page.getByRole('link', { name: 'Meeting of the gardeners' }).first().click();
    await page.locator('.tiptap').waitFor();
    await page.getByRole('button', { name: 'Share' }).click();
    const link = await page.getByLabel('Link to the document').inputValue();
    assert.match(link, /\/open\/[0-9a-f-]{36}$/);
    await shot(page, 'share');
    await page.keyboard.press('Escape');
    assert.equal(await page.getByRole('dialog').count(), 0);
  });

  await test('everything can be reached and done by keyboard', async () => {
    await page.locator('.tiptap').focus();
    await page.keyboard.type('Bold');
    await page.keyboard.press('Control+a');
    await page.keyboard.press('Shift+Tab'); // Out of the text, into the toolbar.
    const focused = () => page.evaluate(() => document.activeElement.getAttribute('aria-label'));
    for (let step = 0; step < 20 && (await focused()) !== 'Bold'; step++) await page.keyboard.press('ArrowLeft');
    assert.equal(await focused(), 'Bold');
    await shot(page, 'keyboard-focus');
    await page.keyboard.press('Enter');
    await t.eventually(async () => assert.equal(await page.locator('.tiptap strong').innerText(), 'Bold'));
    await page.getByRole('button', { name: 'More' }).focus();
    await page.keyboard.press('ArrowDown');
    await t.eventually(async () => assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Delete'));
    await page.keyboard.press('Escape');
    assert.equal(await focused(), 'More');
  });

  await test('content of another editor is shown and left alone, whether it is there or arrives', async () => {
    const id = page.url().split('/').pop();
    const other = new Y.Doc();
    const read = async () => {
      const { bytes } = await t.rest(phone, 'GET', `/v1/documents/${id}/content`, { accept: 'application/octet-stream' });
      const doc = new Y.Doc();
      Y.applyUpdate(doc, new Uint8Array(bytes));
      return doc.getXmlFragment('default').toString();
    };
    const { bytes } = await t.rest(phone, 'GET', `/v1/documents/${id}/content`, { accept: 'application/octet-stream' });
    Y.applyUpdate(other, new Uint8Array(bytes));
    const before = Y.encodeStateVector(other);
    const table = new Y.XmlElement('table');
    const cell = new Y.XmlText();
    cell.insert(0, 'a cell of another program');
    table.insert(0, [cell]);
    other.getXmlFragment('default').insert(1, [table]);
    const { status } = await t.rest(phone, 'POST', `/v1/documents/${id}/update`, { update: Y.encodeStateAsUpdate(other, before) });
    assert.equal(Math.floor(status / 100), 2);
    await page.getByText('Another program wrote parts').waitFor(); // It arrived in an open editor.
    await page.getByText('a cell of another program').waitFor();
    await shot(page, 'foreign-content');
    await page.reload();
    await page.getByText('a cell of another program').waitFor(); // It was there when the editor was opened.
    assert.match(await read(), /<table>a cell of another program<\/table>/);
    // Its author takes it out again.
    const after = Y.encodeStateVector(other);
    other.getXmlFragment('default').delete(1, 1);
    await t.rest(phone, 'POST', `/v1/documents/${id}/update`, { update: Y.encodeStateAsUpdate(other, after) });
    await t.eventually(async () => assert.doesNotMatch(await read(), /table/));
    await page.reload();
    await page.locator('.tiptap strong').waitFor();
  });

  await test('a server that went away is said to be away, and so are the changes', async () => {
    await t.becomes(page, 'saved');
    await pagesSocket.cut();
    await t.becomes(page, 'offline');
    await page.locator('.tiptap').click();
    await page.keyboard.press('End');
    await page.keyboard.type(' and more');
    await shot(page, 'offline');
    pagesSocket.mend();
    await t.becomes(page, 'saved');
  });

  await test('a session that ends leaves the text on the screen, and signing in again saves it', async () => {
    await pagesSocket.cut();
    await t.becomes(page, 'offline');
    await page.keyboard.type(' unsaved words');
    assert.equal((await t.rest(page, 'POST', '/v1/auth/logout')).status < 300, true); // Elsewhere, as it were.
    pagesSocket.mend();
    await page.getByRole('heading', { name: 'Sign in again' }).waitFor();
    assert.match(await t.textOf(page), /unsaved words/);
    await shot(page, 'session-ended');
    await page.getByLabel('Password').fill(t.credentials.password);
    await page.getByRole('button', { name: 'Sign in' }).click();
    await t.becomes(page, 'saved');
    await page.reload();
    await page.locator('.tiptap').waitFor();
    await t.eventually(async () => assert.match(await t.textOf(page), /unsaved words/));
  });

  await test('a document that is not there is said not to be there', async () => {
    await page.goto(`${t.url}/open/00000000-0000-7000-8000-000000000000`);
    await page.getByRole('heading', { name: 'This document is not here' }).waitFor();
    await shot(page, 'not-here');
  });

  await test('dark by choice, and signed out for good', async () => {
    await page.goto(t.url);
    await page.getByRole('button', { name: /^Colours/ }).click();
    await page.getByRole('button', { name: /^Colours: light/ }).click();
    await page.getByRole('button', { name: /^Colours: dark/ }).waitFor();
    await page.getByRole('link', { name: 'Meeting of the gardeners' }).first().click();
    await page.locator('.tiptap').waitFor();
    await shot(page, 'document-dark');
    await page.getByRole('button', { name: /: account$/ }).click();
    await page.getByRole('menuitem', { name: 'Sign out' }).click();
    await page.getByRole('heading', { name: 'Sign in to ContextNexus' }).waitFor();
    assert.equal(await page.evaluate(() => localStorage.getItem('contextnexus.session')), null);
    await shot(page, 'sign-in-dark');
  });

  t.assertNoComplaints(page, phone);
});
