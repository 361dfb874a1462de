// The page says what is so: content of other programs, changes that are not saved, connections that ended late, addresses that lead nowhere.
//
//   node truth.mjs --url http://127.0.0.1:8080 --credentials ../../data/credentials.json --out /tmp/shots
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import path from 'node:path';
import * as Y from 'yjs';
import * as t from './workspace.mjs';

const shot = async (page, name) => {
  await page.screenshot({ path: path.join(t.out, `${name}.png`), caret: 'initial' });
  await t.assertAccessible(page);
};

/** What a screen reader is told about the user's changes, and what is to be seen. */
const spoken = (page) => page.locator('.save-status').getByRole('status').innerText();
const shown = (page) => page.locator('.save-words').innerText();

/** What is shown under the name of a root. */
const rootNamed = (page, name) => page.getByRole('article', { name, exact: true });

/** What has the focus: its label, or else its class. */
const focused = (page) =>
  page.evaluate(() => document.activeElement.getAttribute('aria-label') ?? (document.activeElement.className || document.activeElement.tagName));

/** Writes into a document as another program does, and tells the state vector, after which the next change begins. */
async function write(page, id, doc, after) {
  const { status, text } = await t.rest(page, 'POST', `/v1/documents/${id}/update`, { update: Y.encodeStateAsUpdate(doc, after) });
  assert.equal(Math.floor(status / 100), 2, text);
  return Y.encodeStateVector(doc);
}

/** A document that is made over HTTP, as other programs do, with what `fill` writes. */
async function made(page, title, doc) {
  const projects = JSON.parse((await t.rest(page, 'GET', '/v1/projects')).text).items;
  const project = projects.find((project) => project.is_default);
  const { text } = await t.rest(page, 'POST', '/v1/documents', { body: { project_id: project.id, title } });
  const { id } = JSON.parse(text);
  await write(page, id, doc);
  return id;
}

const openDocument = (page, id) => page.goto(`${t.url}/open/${id}`);

/**
 * The sockets of a page, each of which can be cut off: then nothing passes in either direction, and its close waits for `close`, as
 * when a network goes away.
 */
async function holdSockets(page) {
  const sockets = [];
  await page.routeWebSocket(/\/collab$/, (route) => {
    const server = route.connectToServer();
    const socket = { isCutOff: false, close: () => route.close({ code: 1001 }) };
    sockets.push(socket);
    route.onMessage((message) => socket.isCutOff || server.send(message));
    server.onMessage((message) => socket.isCutOff || route.send(message));
    route.onClose(() => server.close());
    server.onClose(() => socket.isCutOff || route.close({ code: 1001 }));
  });
  return { sockets, cutOff: () => sockets.forEach((socket) => (socket.isCutOff = true)) };
}

await t.run('truth', async (test) => {
  const page = await t.browser();
  await t.signIn(page);
  await page.getByRole('heading', { name: 'Documents' }).waitFor();

  await test('the sign-in page speaks of a demo only where there is one', async () => {
    const stranger = await t.browser();
    await stranger.goto(t.url);
    await stranger.getByText('This is a demo server').waitFor();
    await stranger.getByText('credentials.json').waitFor();
    await stranger.route('**/v1/server', (route) => route.fulfill({ json: { name: 'ContextNexus', version: '0', demo: false } }));
    await stranger.reload();
    await stranger.getByText('ContextNexus 0').waitFor(); // It knows what the server said.
    assert.doesNotMatch(await stranger.locator('body').innerText(), /demo|credentials/i);
    assert.equal(await stranger.getByLabel('Workspace').inputValue(), '');
    assert.equal(await stranger.getByLabel('E-mail').inputValue(), '');
    await stranger.context().browser().close();
  });

  await test('what the programs of the README write is shown under the name that they gave it', async () => {
    const snippets = path.join(import.meta.dirname, '../interop/snippets');
    const flags = Number(process.versions.node.split('.')[0]) < 22 ? ['--experimental-websocket'] : []; // As the README says.
    for (const [name, words] of [['y-websocket', 'Hello from y-websocket'], ['hocuspocus', 'Hello from Hocuspocus'], ['y-sweet', 'Hello from Y-Sweet']]) {
      const program = spawn(process.execPath, [...flags, `./${name}.mjs`], {
        cwd: snippets,
        env: { ...process.env, URL: t.url, TOKEN: t.credentials.token },
        stdio: 'ignore',
      });
      try {
        const id = await t.eventually(async () => {
          const { items } = JSON.parse((await t.rest(page, 'GET', '/v1/documents?limit=200')).text);
          const id = items.find((document) => document.name === `hello-${name}`)?.id ?? assert.fail(`no document of ${name}`);
          // A document is there before its first words, and opens as one to write in until they are.
          const { bytes } = await t.rest(page, 'GET', `/v1/documents/${id}/content`, { accept: 'application/octet-stream' });
          const doc = new Y.Doc();
          Y.applyUpdate(doc, new Uint8Array(bytes));
          assert.ok(doc.getText('content').toString().includes(words));
          return id;
        });
        await openDocument(page, id);
        await rootNamed(page, 'content').getByText(words).waitFor();
        await t.eventually(async () => assert.equal(await shown(page), 'View only'));
        assert.equal(await page.locator('.tiptap, .cm-content').count(), 0, 'no editor');
      } finally {
        program.kill();
      }
    }
    await shot(page, 'other-program');
  });

  await test('content of any shape is shown as text or tree, and follows each change', async () => {
    const other = new Y.Doc();
    const todo = new Y.Map();
    todo.set('title', new Y.Text('Water the beans'));
    todo.set('done', false);
    todo.set('tags', ['garden', 'summer']);
    other.getArray('todos').push([todo]);
    const heading = new Y.XmlElement('heading');
    heading.setAttribute('level', '2');
    heading.insert(0, [new Y.XmlText('A heading')]);
    other.getXmlFragment('article').insert(0, [heading]);
    other.getText('').insert(0, 'a root without a name');
    const id = await made(page, 'Board of another app', other);
    const before = Y.encodeStateVector(other);
    await openDocument(page, id);
    await rootNamed(page, 'todos').getByText('Water the beans').waitFor();
    await rootNamed(page, 'todos').getByText('garden').waitFor();
    await rootNamed(page, 'article').getByText('level=2').waitFor();
    await rootNamed(page, '(no name)').getByText('a root without a name').waitFor();
    await shot(page, 'other-program-tree');
    todo.set('done', true);
    todo.get('title').insert(15, ' and the peas');
    other.getMap('settings').set('theme', 'night');
    await write(page, id, other, before);
    await rootNamed(page, 'todos').getByText('Water the beans and the peas').waitFor();
    await rootNamed(page, 'todos').getByText('true').waitFor();
    await rootNamed(page, 'settings').getByText('night').waitFor();
    await page.getByRole('button', { name: /^Colours/ }).click();
    await page.getByRole('button', { name: /^Colours: light/ }).click();
    await page.getByRole('button', { name: /^Colours: dark/ }).waitFor();
    await shot(page, 'other-program-tree-dark');
    await page.getByRole('button', { name: /^Colours: dark/ }).click();
  });

  await test('a root with the name of an editor’s and another shape is shown, and no editor meets it', async () => {
    const other = new Y.Doc();
    other.getText('default').insert(0, 'plain text where ProseMirror expects XML');
    other.getArray('codemirror').push(['a list where CodeMirror expects text']);
    await openDocument(page, await made(page, 'Odd names', other));
    await rootNamed(page, 'default').getByText('plain text where').waitFor();
    await rootNamed(page, 'codemirror').getByText('a list where').waitFor();
    assert.equal(await page.locator('.tiptap, .cm-content').count(), 0);
  });

  await test('a document with content of this page and of another program is shown with both', async () => {
    await page.goto(t.url);
    const id = (await t.createDocument(page)).split('/').pop();
    await page.locator('.tiptap').click();
    await page.keyboard.type('Written here.');
    await t.becomes(page, 'saved');
    const other = new Y.Doc();
    other.getText('content').insert(0, 'written there');
    await write(page, id, other); // It arrives in an open editor.
    await rootNamed(page, 'content').getByText('written there').waitFor();
    await page.keyboard.type(' And on.');
    await t.eventually(async () => assert.equal(await t.textOf(page), 'Written here. And on.'));
    await t.becomes(page, 'saved');
    await page.reload(); // It was there when the editor was opened.
    await rootNamed(page, 'content').getByText('written there').waitFor();
    assert.equal(await t.textOf(page), 'Written here. And on.');
    await page.getByText('Other programs keep something of their own').waitFor();
    await shot(page, 'both');
    await page.getByRole('button', { name: 'Show' }).click();
    assert.equal(await focused(page), 'other-content');
  });

  await test('what is spoken is what is shown', async () => {
    const typist = await t.browser();
    const gate = await t.gateSocket(typist);
    await t.signIn(typist);
    await t.createDocument(typist);
    await typist.locator('.tiptap').click();
    await typist.keyboard.type('Saved.');
    await t.becomes(typist, 'saved');
    await t.eventually(async () => assert.equal(await spoken(typist), 'Saved'));
    await gate.cut();
    await t.becomes(typist, 'offline');
    assert.equal(await spoken(typist), 'Offline');
    await typist.keyboard.type('Nineteen characters');
    await t.eventually(async () => assert.equal(await shown(typist), 'Offline · 19 unsaved'));
    assert.equal(await spoken(typist), 'Offline · 19 unsaved');
    gate.mend();
    await t.becomes(typist, 'saved');
    await t.eventually(async () => assert.equal(await spoken(typist), 'Saved'));
    t.assertNoComplaints(typist);
    await typist.context().browser().close();
  });

  await test('an answer about a connection that is gone does not disturb the next one', async () => {
    const writer = await t.browser();
    const gate = await t.gateSocket(writer);
    await t.signIn(writer);
    const id = (await t.createDocument(writer)).split('/').pop();
    await writer.locator('.tiptap').click();
    await writer.keyboard.type('Before.');
    await t.becomes(writer, 'saved');
    // The page asks why its connection ended, and the answer takes its time.
    let answer;
    const isAsked = new Promise((resolve) =>
      writer.route(`**/v1/documents/${id}`, (route) => {
        answer ??= () => route.continue();
        resolve();
      }),
    );
    await gate.cut();
    await isAsked;
    await writer.keyboard.type(' Meanwhile.');
    gate.hold(() => true); // The next connection opens, and its document is on the way.
    gate.mend();
    await t.becomes(writer, 'connecting');
    const answered = writer.waitForResponse(`**/v1/documents/${id}`);
    await answer();
    await (await answered).finished();
    await writer.unroute(`**/v1/documents/${id}`);
    await writer.evaluate(() => new Promise((resolve) => setTimeout(resolve, 50))); // The page has read it.
    gate.release();
    await t.becomes(writer, 'saved');
    await writer.evaluate(() => {
      const status = document.querySelector('.save-status');
      window.states = [];
      new MutationObserver(() => window.states.push(status.dataset.state)).observe(status, { attributeFilter: ['data-state'] });
    });
    await writer.waitForTimeout(4_000); // Longer than the page waits before it tries again.
    assert.deepEqual(await writer.evaluate(() => window.states), [], 'nothing was reconnected');
    t.assertNoComplaints(writer);
    await writer.context().browser().close();
  });

  await test('a socket that fell silent is given up, and its late close counts for nothing', async () => {
    const writer = await t.browser();
    const { sockets, cutOff } = await holdSockets(writer);
    await writer.clock.install();
    await t.signIn(writer);
    await t.createDocument(writer);
    await writer.locator('.tiptap').click();
    await writer.keyboard.type('Before.');
    await t.becomes(writer, 'saved');
    cutOff();
    const before = sockets.length;
    await writer.keyboard.type(' In silence.');
    for (let second = 0; second < 120 && sockets.length === before; second++) await writer.clock.runFor(1_000);
    assert.ok(sockets.length > before, 'the page made another connection');
    await t.becomes(writer, 'saved');
    for (const socket of sockets.slice(0, before)) await socket.close();
    await writer.clock.runFor(5_000);
    await writer.keyboard.type(' And on.');
    await t.becomes(writer, 'saved');
    assert.equal(await t.textOf(writer), 'Before. In silence. And on.');
    assert.equal(sockets.length, before + 1, 'the late close ended no other connection');
    t.assertNoComplaints(writer);
    await writer.context().browser().close();
  });

  await test('a network that comes back is used immediately, whatever the old socket still says', async () => {
    const writer = await t.browser();
    const { sockets, cutOff } = await holdSockets(writer);
    await t.signIn(writer);
    await t.createDocument(writer);
    await writer.locator('.tiptap').click();
    await writer.keyboard.type('Before.');
    await t.becomes(writer, 'saved');
    await writer.context().setOffline(true);
    cutOff();
    await t.becomes(writer, 'offline');
    await writer.keyboard.type(' Without a network.');
    await writer.context().setOffline(false);
    await t.becomes(writer, 'saved');
    for (const socket of sockets.slice(0, -1)) await socket.close();
    await writer.keyboard.type(' And on.');
    await t.becomes(writer, 'saved');
    assert.equal(await t.textOf(writer), 'Before. Without a network. And on.');
    t.assertNoComplaints(writer);
    await writer.context().browser().close();
  });

  await test('the focus returns from each dialog to what opened it', async () => {
    await page.getByRole('button', { name: 'Share' }).click();
    await page.getByRole('dialog').waitFor();
    await page.keyboard.press('Escape');
    await t.eventually(async () => assert.equal(await focused(page), 'Share'));
    const account = page.getByRole('button', { name: /: account$/ });
    for (const leave of ['Cancel', 'Apply', 'Close']) {
      await account.click();
      await page.getByRole('menuitem', { name: 'Name and colour' }).click();
      await page.getByRole('dialog').getByRole('button', { name: leave }).click();
      await t.eventually(async () => assert.match(await focused(page), /: account$/));
    }
    await page.getByRole('link', { name: 'All documents' }).click();
    const actions = page.getByRole('button', { name: 'Actions for Board of another app' }).first();
    for (const leave of ['Cancel', 'Rename']) {
      await actions.click();
      await page.getByRole('menuitem', { name: 'Rename' }).click();
      await page.getByRole('dialog').getByRole('button', { name: leave }).click();
      await t.eventually(async () => assert.equal(await focused(page), 'Actions for Board of another app'));
    }
    await actions.click();
    await page.getByRole('menuitem', { name: 'Share' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Close' }).click();
    await t.eventually(async () => assert.equal(await focused(page), 'Actions for Board of another app'));
    await page.getByRole('button', { name: 'New' }).first().click();
    await page.getByRole('menuitem', { name: 'Code file' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Cancel' }).click();
    await t.eventually(async () => assert.match(await page.evaluate(() => document.activeElement.textContent), /New/));
  });

  await test('after signing in again over a page, the focus is where it was', async () => {
    const writer = await t.browser();
    await t.signIn(writer);
    await t.createDocument(writer);
    await writer.locator('.tiptap').click();
    await writer.keyboard.type('Before.');
    await t.becomes(writer, 'saved');
    await t.rest(writer, 'POST', '/v1/auth/logout'); // Elsewhere, as it were.
    await writer.getByRole('heading', { name: 'Sign in again' }).waitFor();
    await writer.getByLabel('Password').fill(t.credentials.password);
    await writer.getByRole('button', { name: 'Sign in' }).click();
    await t.eventually(async () => assert.equal(await focused(writer), 'Document text'));
    await writer.context().browser().close();
  });

  await test('the find bar looks like the page, in light and in dark', async () => {
    await page.goto(t.url);
    await t.createCodeFile(page, 'find.ts');
    await page.locator('.cm-content').click();
    await page.keyboard.type('const found = 1;\nfound + found;');
    const variable = (name) => page.evaluate((name) => {
      const probe = document.body.appendChild(document.createElement('i'));
      probe.style.backgroundColor = `var(${name})`;
      const colour = getComputedStyle(probe).backgroundColor;
      probe.remove();
      return colour;
    }, name);
    const style = (selector, property) => page.locator(selector).first().evaluate((element, property) => getComputedStyle(element)[property], property);
    for (const theme of ['light', 'dark']) {
      await page.locator('.cm-content').click();
      await page.keyboard.press('Control+f');
      await page.getByLabel('Find', { exact: true }).fill('found');
      assert.equal(await style('.cm-search', 'fontFamily'), await style('body', 'fontFamily'));
      assert.equal(await style('.cm-panels', 'backgroundColor'), await variable('--surface'));
      assert.equal(await style('.cm-search .cm-textfield', 'backgroundColor'), await variable('--page'));
      assert.equal(await style('.cm-search .cm-button', 'backgroundColor'), await variable('--surface'));
      assert.equal(await style('.cm-search .cm-button', 'backgroundImage'), 'none');
      await shot(page, `find-${theme}`);
      await page.keyboard.press('Escape');
      assert.equal(await focused(page), 'Code');
      if (theme === 'light') {
        await page.getByRole('button', { name: /^Colours/ }).click();
        await page.getByRole('button', { name: /^Colours: light/ }).click();
        await page.getByRole('button', { name: /^Colours: dark/ }).waitFor();
      }
    }
    await page.getByRole('button', { name: /^Colours: dark/ }).click();
  });

  await test('an address that leads nowhere gives a page that says so and leads back, signed in or not', async () => {
    const stranger = await t.browser();
    for (const address of ['/no/such/page', '/open/the-plan']) {
      for (const [reader, link] of [[page, 'Go to your documents'], [stranger, 'Go to sign-in']]) {
        const response = await reader.goto(t.url + address);
        assert.equal(response.status(), 404);
        await reader.getByRole('heading', { name: 'Page not found' }).waitFor();
        await reader.getByText(address).waitFor();
        await shot(reader, 'nowhere');
        await reader.getByRole('link', { name: link }).click();
        await reader.getByRole('heading', { name: reader === page ? 'Documents' : 'Sign in to ContextNexus' }).waitFor();
      }
    }
    t.assertNoComplaints(stranger);
  });

  t.assertNoComplaints(page);
});
