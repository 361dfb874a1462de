import * as Y from 'yjs'
import { WebsocketProvider } from 'y-websocket'

const { URL, TOKEN, DOCUMENT } = process.env // DOCUMENT is the id of a document

// A page should not hold a long-lived token in an address. A ticket opens one document, once, within a minute:
// your own back end asks for it, with `{ subject, name, role }` for a user of yours who has no account here.
async function ticket () {
  const response = await fetch(`${URL}/v1/documents/${DOCUMENT}/ticket`, {
    method: 'POST',
    headers: { authorization: `Bearer ${TOKEN}` }
  })
  if (!response.ok) throw new Error(`no ticket: ${response.status}`)
  return (await response.json()).ticket
}

const doc = new Y.Doc()
const text = doc.getText('content')
const provider = new WebsocketProvider(URL.replace('http', 'ws') + '/yjs', DOCUMENT, doc, {
  params: { ticket: await ticket() }
})

// Each connection needs a ticket of its own, so y-websocket must not reconnect with the old one.
provider.on('connection-close', async () => {
  if (!provider.shouldConnect) return
  provider.disconnect()
  for (;;) {
    await new Promise(resolve => setTimeout(resolve, 500 + Math.random() * 1500))
    try {
      provider.params.ticket = await ticket()
      return provider.connect()
    } catch {
      // The server is away: ask again.
    }
  }
})

provider.once('sync', () => text.insert(0, 'Hello with a ticket\n'))
text.observe(() => console.log(text.toString()))
