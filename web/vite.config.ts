import { defineConfig, loadEnv, type Plugin } from 'vite';

/** Where browsers can, the first paint waits for the script, which knows whether the user chose light or dark: no flash of the other. */
const paintOnce: Plugin = {
  name: 'paint-once',
  transformIndexHtml: { order: 'post', handler: (html) => html.replace('<script type="module"', '<script type="module" blocking="render"') },
};

export default defineConfig(({ mode }) => {
  /** Where `npm run dev` finds a running server. */
  const server = loadEnv(mode, '.', 'CONTEXTNEXUS_').CONTEXTNEXUS_URL ?? 'http://127.0.0.1:8080';
  return {
    oxc: { jsx: { runtime: 'automatic', importSource: 'preact' } },
    // The server puts a fresh nonce into each page it sends: CodeMirror needs one for the style sheets that it makes.
    html: { cspNonce: 'CSP_NONCE' },
    plugins: [paintOnce],
    build: {
      target: 'es2022',
      // Nothing inline: the content security policy of the page allows neither inline scripts nor data: fonts.
      assetsInlineLimit: 0,
      modulePreload: { polyfill: false },
      license: { fileName: 'licenses.md' },
    },
    server: {
      proxy: {
        '/v1': server,
        '/collab': { target: server, ws: true },
      },
    },
  };
});
