import * as Y from 'yjs'
import { WebsocketProvider } from 'y-websocket'

const { URL, TOKEN } = process.env

const doc = new Y.Doc()
const text = doc.getText('content')
const provider = new WebsocketProvider(URL.replace('http', 'ws') + '/yjs', 'hello-y-websocket', doc, {
  params: { token: TOKEN }
})

provider.awareness.setLocalStateField('user', { name: 'Ada', color: '#4f46e5' })
provider.once('sync', () => text.insert(0, 'Hello from y-websocket\n'))
text.observe(() => console.log(text.toString()))
