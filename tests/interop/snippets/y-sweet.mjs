import * as Y from 'yjs'
import { createYjsProvider } from '@y-sweet/client'

const { URL, TOKEN } = process.env

// Your own back end does this, with its token: it creates the document, then asks for a token of this document for a browser.
async function clientToken () {
  const post = (path, body) => fetch(URL + path, {
    method: 'POST',
    headers: { authorization: `Bearer ${TOKEN}`, 'content-type': 'application/json' },
    body: JSON.stringify(body)
  }).then(response => response.json())
  const { docId } = await post('/doc/new', { docId: 'hello-y-sweet' })
  return post(`/doc/${docId}/auth`, { authorization: 'full' })
}

const doc = new Y.Doc()
const text = doc.getText('content')
const provider = createYjsProvider(doc, 'hello-y-sweet', clientToken, {
  showDebuggerLink: false // It would print the token, in the address of a page of somebody else's.
})

provider.once('sync', () => text.insert(0, 'Hello from Y-Sweet\n'))
provider.on('local-changes', hasLocalChanges => console.log(hasLocalChanges ? 'saving' : 'saved'))
text.observe(() => console.log(text.toString()))
