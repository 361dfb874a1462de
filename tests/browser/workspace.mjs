// What the tests of the page have in common: browsers, a signed-in user, and words for what a person does.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import axe from 'axe-core';
import { chromium } from 'playwright-core';

const { values } = parseArgs({
  options: {
    url: { type: 'string', default: process.env.CONTEXTNEXUS_URL ?? 'http://127.0.0.1:8080' },
    credentials: { type: 'string', default: process.env.CONTEXTNEXUS_CREDENTIALS ?? 'data/credentials.json' },
    out: { type: 'string' },
    chromium: { type: 'string', default: process.env.CHROMIUM ?? '/usr/bin/chromium' },
  },
});

/** The server under test, without a slash at the end. */
export const url = values.url.replace(/\/$/, '');
/** `{tenant, email, password}` as the server wrote them. */
export const credentials = JSON.parse(fs.readFileSync(values.credentials, 'utf8'));
/** Where screenshots go. */
export const out = values.out ?? fs.mkdtempSync(path.join(os.tmpdir(), 'contextnexus-browser-'));
fs.mkdirSync(out, { recursive: true });

/** No verdict depends on the speed of the machine: only a failure takes this long. */
export const PATIENCE_MS = 60_000;

const open = [];

/** A browser process of its own, with an empty profile: nothing is shared with another but the server. */
export async function browser({ width = 1280, height = 800, ...context } = {}) {
  const process = await chromium.launch({
    executablePath: values.chromium,
    args: ['--no-sandbox', '--disable-background-networking', '--disable-component-update', '--disable-sync', '--no-first-run', '--font-render-hinting=none'],
  });
  open.push(process);
  const page = await (await process.newContext({ viewport: { width, height }, colorScheme: 'light', ...context })).newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  page.complaints = [];
  // A violation of the content security policy, an exception, a warning of an editor: all of it is a defect.
  page.on('pageerror', (error) => page.complaints.push(String(error.stack ?? error)));
  page.on('console', (message) => {
    const isExpected = /status of 4(01|03|04|10)|WebSocket (connection|is already)|net::ERR/.test(message.text());
    if (['error', 'warning'].includes(message.type()) && !isExpected) page.complaints.push(message.text());
  });
  return page;
}

/** Runs one file's tests in order, closes what was opened, and fails the process with the first failure. */
export async function run(title, body) {
  try {
    await body(async (sentence, test) => {
      const from = performance.now();
      await test();
      console.log(`ok   ${sentence} (${Math.round(performance.now() - from)} ms)`);
    });
    console.log(`${title}: passed; screenshots in ${out}`);
  } catch (error) {
    console.error(`FAIL ${title}\n`, error);
    for (const [index, process] of open.entries()) {
      const page = process.contexts()[0]?.pages()[0];
      await page?.screenshot({ path: path.join(out, `failed-${index}.png`) }).catch(() => {});
    }
    console.error(`screenshots in ${out}`);
    globalThis.process.exitCode = 1;
  } finally {
    await Promise.all(open.map((process) => process.close().catch(() => {})));
  }
}

/** Polls until the check holds, and fails with its last complaint. */
export async function eventually(check, patienceMs = PATIENCE_MS) {
  const until = Date.now() + patienceMs;
  for (;;) {
    try {
      return await check();
    } catch (error) {
      if (Date.now() > until) throw error;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

export async function signIn(page, at = '/', password = credentials.password) {
  await page.goto(url + at);
  await page.getByLabel('Workspace').fill(credentials.tenant);
  await page.getByLabel('E-mail').fill(credentials.email);
  await page.getByLabel('Password').fill(password);
  await page.getByRole('button', { name: 'Sign in' }).click();
}

/** Chooses the name and, by its place in the palette, the colour that others see. */
export async function callOneself(page, name, colour) {
  await page.getByRole('button', { name: /: account$/ }).click();
  await page.getByRole('menuitem', { name: 'Name and colour' }).click();
  await page.getByLabel('Name', { exact: true }).fill(name);
  await page.getByLabel(`Colour ${colour}`).check();
  await page.getByRole('button', { name: 'Apply' }).click();
}

export async function createDocument(page) {
  await page.getByRole('button', { name: 'New' }).first().click();
  await page.getByRole('menuitem', { name: 'Document' }).click();
  await page.locator('.tiptap').waitFor();
  return new URL(page.url()).pathname;
}

export async function createCodeFile(page, title) {
  await page.getByRole('button', { name: 'New' }).first().click();
  await page.getByRole('menuitem', { name: 'Code file' }).click();
  await page.getByLabel(/^Title/).fill(title);
  await page.getByRole('button', { name: 'Create' }).click();
  await page.locator('.cm-content').waitFor();
  return new URL(page.url()).pathname;
}

export async function retitle(page, title) {
  await page.getByLabel('Title', { exact: true }).fill(title);
  await page.getByLabel('Title', { exact: true }).press('Enter');
}

/** The text of the editor, without the name tags of others. */
export const textOf = (page) =>
  page.evaluate(() => {
    const copy = document.querySelector('.tiptap, .cm-content').cloneNode(true);
    for (const caret of copy.querySelectorAll('.remote-caret, .ProseMirror-separator')) caret.remove();
    return [...copy.querySelectorAll('p, h1, h2, h3, li > p, pre, .cm-line')].map((line) => line.textContent.replaceAll('\u2060', '')).join('\n');
  });

/** What the page says about the user's changes: `saved`, `saving`, `offline`, `connecting`, `opening`, `read-only`. */
export const saveState = (page) => page.locator('.save-status').getAttribute('data-state');

export const becomes = (page, state) => eventually(async () => assert.equal(await saveState(page), state));

/** The names on the carets of others. */
export const caretNames = (page) => page.locator('.remote-name').allTextContents();

/** Contrast, names, roles: what a machine can find of WCAG 2.1 AA. */
export async function assertAccessible(page) {
  await page.waitForTimeout(400); // What moves or fades in is judged when it is there.
  await page.evaluate(axe.source);
  const { violations } = await page.evaluate(() =>
    window.axe.run({
      runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice'],
      rules: { 'label-content-name-mismatch': { enabled: false } }, // Initials are a picture of a name, not its text.
    }),
  );
  assert.deepEqual(violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html, failureSummary }) => `${html.slice(0, 160)} ${failureSummary}`).join(' | ')}`), []);
}

export const assertNoComplaints = (...pages) => assert.deepEqual(pages.flatMap((page) => page.complaints), []);

/**
 * Puts a gate into the WebSocket between the page and the server. Call before the page connects.
 * `hold` keeps back frames from the server that it holds for; `cut` closes the connection and lets none be made until `mend`.
 */
export async function gateSocket(page) {
  const gate = { holds: () => false, held: [], isCut: false, sockets: new Set() };
  await page.routeWebSocket(/\/collab$/, (socket) => {
    if (gate.isCut) return socket.close({ code: 1001 });
    const server = socket.connectToServer();
    gate.sockets.add({ socket, server });
    server.onMessage((message) => {
      if (gate.holds(message)) gate.held.push(() => socket.send(message));
      else socket.send(message);
    });
  });
  return {
    hold: (which) => (gate.holds = which),
    release: () => {
      gate.holds = () => false;
      for (const send of gate.held.splice(0)) send();
    },
    heldCount: () => gate.held.length,
    cut: async () => {
      gate.isCut = true;
      for (const { socket, server } of gate.sockets) {
        await server.close({ code: 1001 });
        await socket.close({ code: 1001 });
      }
      gate.sockets.clear();
    },
    mend: () => (gate.isCut = false),
  };
}

/** Whether a frame of the Hocuspocus protocol is a SyncStatus, the confirmation of a write: name, then type 8. */
export function isConfirmation(message) {
  const bytes = Buffer.from(message);
  let at = 0;
  let length = 0;
  for (let shift = 0; ; shift += 7) {
    const byte = bytes[at++];
    length |= (byte & 0x7f) << shift;
    if (byte < 0x80) break;
  }
  return bytes[at + length] === 8;
}

/** Any call of the REST interface, as the signed-in user of the page. `body` goes as JSON, `update` as a Yjs update. */
export async function rest(page, method, path, { accept = 'application/json', body, update } = {}) {
  return page.evaluate(
    async ({ method, path, accept, body, update }) => {
      const stored = localStorage.getItem('contextnexus.session') ?? sessionStorage.getItem('contextnexus.session');
      const response = await fetch(path, {
        method,
        headers: {
          accept,
          authorization: `Bearer ${JSON.parse(stored).token}`,
          ...(body && { 'content-type': 'application/json' }),
          ...(update && { 'content-type': 'application/octet-stream' }),
        },
        ...(body && { body: JSON.stringify(body) }),
        ...(update && { body: new Uint8Array(update) }),
      });
      const bytes = [...new Uint8Array(await response.arrayBuffer())];
      return { status: response.status, bytes, text: new TextDecoder().decode(new Uint8Array(bytes)) };
    },
    { method, path, accept, body, update: update && [...update] },
  );
}
