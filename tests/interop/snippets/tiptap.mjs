import { Editor } from '@tiptap/core'
import { StarterKit } from '@tiptap/starter-kit'
import { Collaboration } from '@tiptap/extension-collaboration'
import { CollaborationCaret } from '@tiptap/extension-collaboration-caret'
import { HocuspocusProvider } from '@hocuspocus/provider'

const { VITE_URL: URL, VITE_TOKEN: TOKEN } = import.meta.env

const provider = new HocuspocusProvider({
  url: URL.replace('http', 'ws') + '/collab',
  name: 'hello-tiptap',
  token: TOKEN
})

const editor = new Editor({
  element: document.body,
  extensions: [
    StarterKit.configure({ undoRedo: false }), // Collaboration brings an undo of its own, per user.
    Collaboration.configure({ document: provider.document }),
    CollaborationCaret.configure({ provider, user: { name: 'Ada', color: '#4f46e5' } })
  ]
})

provider.on('synced', function greet () {
  provider.off('synced', greet)
  editor.commands.insertContentAt(0, '<p>Hello from <strong>Tiptap</strong></p>')
})
editor.on('update', () => console.log(editor.getHTML()))
