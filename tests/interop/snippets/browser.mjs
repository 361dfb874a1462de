// What the programs expect of a browser, for Node: `node --import ./browser.mjs tiptap.mjs`.
import { JSDOM } from 'jsdom'
import WebSocket from 'ws'

const { window } = new JSDOM('<!doctype html><body></body>', { pretendToBeVisual: true })
globalThis.WebSocket ??= WebSocket // Node has one of its own since 22.
// Not `window` itself: Y-Sweet takes it for a sign that there is a BroadcastChannel to a second tab, and jsdom has no layout.
for (const name of ['Window', 'document', 'navigator', 'Node', 'Element', 'HTMLElement', 'MutationObserver', 'DOMParser', 'getSelection', 'getComputedStyle', 'requestAnimationFrame', 'cancelAnimationFrame']) {
  if (!(name in globalThis)) Object.defineProperty(globalThis, name, { value: window[name], configurable: true, writable: true })
}
globalThis.window ??= window
for (const Box of [window.Range, window.Element]) {
  Box.prototype.getClientRects ??= () => []
  Box.prototype.getBoundingClientRect ??= () => ({ left: 0, right: 0, top: 0, bottom: 0, width: 0, height: 0 })
}
