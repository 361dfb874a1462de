import { Editor, getSchema } from '@tiptap/core';
import { Collaboration } from '@tiptap/extension-collaboration';
import { CollaborationCaret } from '@tiptap/extension-collaboration-caret';
import { Placeholder } from '@tiptap/extensions';
import { StarterKit } from '@tiptap/starter-kit';
import { useEffect, useRef, useState } from 'preact/hooks';
import type { Awareness } from 'y-protocols/awareness';
import type * as Y from 'yjs';
import { plainText, unknownInEvents, unknownParts, type Known } from '../collaboration/foreign-content';
import { safeColour, safeName } from '../collaboration/people';
import type { Room } from '../collaboration/room';
import { Icon } from '../parts/icon';
import { Toolbar, ToolbarButton, ToolbarGap, keys } from './toolbar';

export default function RichText({ room, root, editable }: { room: Room; root: string; editable: boolean }) {
  const place = useRef<HTMLDivElement>(null);
  const [editor, setEditor] = useState<Editor | null>(null);
  const [unknown, setUnknown] = useState<string[]>([]);

  useEffect(() => {
    const fragment = room.doc.getXmlFragment(root);
    const foreign = unknownParts(fragment, SCHEMA);
    if (foreign.length > 0) return setUnknown(foreign);
    let created: Editor | null = null;
    let stopNames = () => {};
    // Registered before the editor's own observer, so that it is gone before it would meet what it does not know.
    const guard = (events: Y.YEvent<any>[]) => {
      const arrived = unknownInEvents(events, SCHEMA);
      if (arrived.length === 0) return;
      stopNames();
      created?.destroy();
      setEditor(null);
      setUnknown(arrived);
    };
    fragment.observeDeep(guard);
    created = new Editor({
      element: place.current!,
      editable,
      autofocus: editable ? 'start' : false,
      injectCSS: false, // It would add an inline style sheet; ours has the same rules.
      extensions: [
        ...CONTENT,
        Placeholder.configure({ placeholder: 'Start writing. Everyone here sees it at once.' }),
        Collaboration.configure({ document: room.doc, field: root }),
        CollaborationCaret.configure({
          provider: { awareness: room.awareness },
          user: room.awareness.getLocalState()?.user,
          render: caret,
          selectionRender: (user) => ({ class: 'remote-selection', style: `--who: ${safeColour(user.color, 0)}` }),
        }),
      ],
      // With a tabindex a reader has a focus too, and so a caret that others see.
      editorProps: { attributes: { 'aria-label': 'Document text', role: 'textbox', 'aria-multiline': 'true', spellcheck: 'true', tabindex: '0' } },
    });
    setEditor(created);
    stopNames = showNamesThatMove(created, room.awareness);
    return () => {
      stopNames();
      fragment.unobserveDeep(guard);
      created?.destroy();
    };
  }, [room, root]);

  useEffect(() => {
    if (editor && !editor.isDestroyed && editor.isEditable !== editable) editor.setEditable(editable, false);
  }, [editor, editable]);

  if (unknown.length > 0) return <ReadOnlyText room={room} root={root} unknown={unknown} />;
  return (
    <div class="editor">
      {editor && editable && <FormatBar editor={editor} />}
      <div class="paper">
        <div ref={place} class="prose" />
      </div>
    </div>
  );
}

/** What documents of this page may contain. */
const CONTENT = [
  StarterKit.configure({
    undoRedo: false, // Collaboration brings one that undoes only what this user did.
    trailingNode: false, // It writes by itself, in every browser at once and in those of readers too.
    link: { openOnClick: false },
  }),
];

const SCHEMA = getSchema(CONTENT) as unknown as Known;

/** A document with content of another editor: shown, not touched. */
function ReadOnlyText({ room, root, unknown }: { room: Room; root: string; unknown: string[] }) {
  const fragment = room.doc.getXmlFragment(root);
  const [text, setText] = useState(() => plainText(fragment));
  useEffect(() => {
    const redraw = () => setText(plainText(fragment));
    fragment.observeDeep(redraw);
    return () => fragment.unobserveDeep(redraw);
  }, [fragment]);
  return (
    <div class="editor">
      <div class="notice banner" role="status">
        <Icon name="warning" />
        <span>
          Another program wrote parts that this page cannot edit ({unknown.join(', ')}). You see the text alone; nothing of it is changed from here.
        </span>
      </div>
      <div class="paper">
        <div class="prose">
          <div class="tiptap plain" tabIndex={0} role="document" aria-label="Document text, read only">
            {text}
          </div>
        </div>
      </div>
    </div>
  );
}

function caret(user: Record<string, unknown>): HTMLElement {
  const element = document.createElement('span');
  element.className = 'remote-caret';
  element.style.setProperty('--who', safeColour(user.color, 0));
  const label = document.createElement('span');
  label.className = 'remote-name';
  label.textContent = safeName(user.name);
  element.append(label);
  showName(label);
  return element;
}

/** A name covers text, so it fades when its caret rests. */
const NAME_FADES_AFTER_MS = 4_000;

function showName(label: Element): void {
  for (const animation of label.getAnimations()) animation.cancel();
  label.animate([{ opacity: 1 }, { opacity: 0 }], { delay: NAME_FADES_AFTER_MS, duration: 300, fill: 'forwards' });
}

/** Shows the names of carets again that move: ProseMirror moves their elements, it does not make new ones. */
function showNamesThatMove(editor: Editor, awareness: Awareness): () => void {
  const onChange = ({ updated }: { updated: number[] }) => {
    const names = updated.map((client) => safeName(awareness.getStates().get(client)?.user?.name));
    for (const label of editor.view.dom.querySelectorAll('.remote-name')) if (names.includes(label.textContent ?? '')) showName(label);
  };
  awareness.on('change', onChange);
  return () => awareness.off('change', onChange);
}

function FormatBar({ editor }: { editor: Editor }) {
  const [, setTurn] = useState(0);
  useEffect(() => {
    const redraw = () => setTurn((turn) => turn + 1);
    editor.on('transaction', redraw);
    return () => {
      editor.off('transaction', redraw);
    };
  }, [editor]);
  const run = () => editor.chain().focus();
  const block = ([1, 2, 3] as const).find((level) => editor.isActive('heading', { level })) ?? 0;

  return (
    <Toolbar label="Formatting">
      <select
        class="block-kind"
        aria-label="Paragraph style"
        value={String(block)}
        onChange={(event) => {
          const level = Number(event.currentTarget.value);
          if (level === 0) run().setParagraph().run();
          else run().setHeading({ level: level as 1 | 2 | 3 }).run();
        }}
      >
        <option value="0">Text</option>
        <option value="1">Heading 1</option>
        <option value="2">Heading 2</option>
        <option value="3">Heading 3</option>
      </select>
      <ToolbarGap />
      <ToolbarButton label="Bold" keys={keys('mod B')} pressed={editor.isActive('bold')} onPress={() => run().toggleBold().run()}>
        <Icon name="bold" />
      </ToolbarButton>
      <ToolbarButton label="Italic" keys={keys('mod I')} pressed={editor.isActive('italic')} onPress={() => run().toggleItalic().run()}>
        <Icon name="italic" />
      </ToolbarButton>
      <ToolbarButton label="Strikethrough" keys={keys('mod shift S')} pressed={editor.isActive('strike')} onPress={() => run().toggleStrike().run()}>
        <Icon name="strike" />
      </ToolbarButton>
      <ToolbarButton label="Code" keys={keys('mod E')} pressed={editor.isActive('code')} onPress={() => run().toggleCode().run()}>
        <Icon name="inlineCode" />
      </ToolbarButton>
      <ToolbarGap />
      <ToolbarButton label="Bulleted list" keys={keys('mod shift 8')} pressed={editor.isActive('bulletList')} onPress={() => run().toggleBulletList().run()}>
        <Icon name="bullets" />
      </ToolbarButton>
      <ToolbarButton label="Numbered list" keys={keys('mod shift 7')} pressed={editor.isActive('orderedList')} onPress={() => run().toggleOrderedList().run()}>
        <Icon name="numbers" />
      </ToolbarButton>
      <ToolbarButton label="Quote" keys={keys('mod shift B')} pressed={editor.isActive('blockquote')} onPress={() => run().toggleBlockquote().run()}>
        <Icon name="quote" />
      </ToolbarButton>
      <ToolbarButton label="Code block" pressed={editor.isActive('codeBlock')} onPress={() => run().toggleCodeBlock().run()}>
        <Icon name="codeBlock" />
      </ToolbarButton>
      <ToolbarGap />
      <ToolbarButton label="Undo" keys={keys('mod Z')} disabled={!editor.can().undo()} onPress={() => run().undo().run()}>
        <Icon name="undo" />
      </ToolbarButton>
      <ToolbarButton label="Redo" keys={keys('mod shift Z')} disabled={!editor.can().redo()} onPress={() => run().redo().run()}>
        <Icon name="redo" />
      </ToolbarButton>
    </Toolbar>
  );
}
