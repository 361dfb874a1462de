import * as Y from 'yjs'
import { WebsocketProvider } from 'y-websocket'
import { EditorView, basicSetup } from 'codemirror'
import { yCollab } from 'y-codemirror.next'

const { VITE_URL: URL, VITE_TOKEN: TOKEN } = import.meta.env

const doc = new Y.Doc()
const text = doc.getText('codemirror')
const provider = new WebsocketProvider(URL.replace('http', 'ws') + '/yjs', 'hello-codemirror', doc, {
  params: { token: TOKEN }
})
provider.awareness.setLocalStateField('user', { name: 'Ada', color: '#4f46e5', colorLight: '#4f46e533' })

provider.once('sync', () => {
  const view = new EditorView({
    doc: text.toString(),
    extensions: [basicSetup, yCollab(text, provider.awareness)],
    parent: document.body
  })
  view.dispatch({ changes: { from: 0, insert: '// Hello from CodeMirror\n' } })
  console.log(view.state.doc.toString())
})
