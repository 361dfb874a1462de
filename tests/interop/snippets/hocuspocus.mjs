import * as Y from 'yjs'
import { HocuspocusProvider } from '@hocuspocus/provider'

const { URL, TOKEN } = process.env

const doc = new Y.Doc()
const text = doc.getText('content')
const provider = new HocuspocusProvider({
  url: URL.replace('http', 'ws') + '/collab',
  name: 'hello-hocuspocus',
  document: doc,
  token: TOKEN,
  // 0 means that PostgreSQL has committed everything typed here, not merely that the server received it.
  onUnsyncedChanges: ({ number }) => console.log(number === 0 ? 'saved' : `${number} unsaved`)
})

provider.on('synced', function greet () {
  provider.off('synced', greet)
  text.insert(0, 'Hello from Hocuspocus\n')
})
text.observe(() => console.log(text.toString()))
