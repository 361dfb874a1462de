import { autocompletion, closeBrackets, closeBracketsKeymap, completionKeymap } from '@codemirror/autocomplete';
import { defaultKeymap, indentWithTab } from '@codemirror/commands';
import { bracketMatching, defaultHighlightStyle, foldGutter, foldKeymap, indentOnInput, syntaxHighlighting, type LanguageSupport } from '@codemirror/language';
import { highlightSelectionMatches, search, searchKeymap } from '@codemirror/search';
import { Compartment, EditorState } from '@codemirror/state';
import { EditorView, drawSelection, dropCursor, highlightActiveLine, highlightActiveLineGutter, keymap, lineNumbers } from '@codemirror/view';
import { useEffect, useRef, useState } from 'preact/hooks';
import { yCollab, yUndoManagerKeymap } from 'y-codemirror.next';
import * as Y from 'yjs';
import { languageOf, type Language } from '../collaboration/kind';
import type { Room } from '../collaboration/room';
import { Icon } from '../parts/icon';
import { remoteCarets } from './code-carets';
import { codeColours, codeTheme } from './code-theme';
import { Toolbar, ToolbarButton, keys } from './toolbar';

const LANGUAGE_WORDS: Record<Language, string> = {
  javascript: 'JavaScript',
  typescript: 'TypeScript',
  python: 'Python',
  rust: 'Rust',
  markdown: 'Markdown',
  html: 'HTML',
  css: 'CSS',
  json: 'JSON',
  sql: 'SQL',
  plain: 'Plain text',
};

/** The words of the find bar, with capital letters as everywhere else in the page. */
const PHRASES = {
  next: 'Next',
  previous: 'Previous',
  all: 'All',
  'match case': 'Match case',
  regexp: 'Regular expression',
  'by word': 'Whole words',
  replace: 'Replace',
  'replace all': 'Replace all',
  close: 'Close',
  go: 'Go',
};

/** Loaded when first needed: nobody downloads ten grammars to write one file. */
async function load(language: Language): Promise<LanguageSupport | null> {
  switch (language) {
    case 'javascript':
      return (await import('@codemirror/lang-javascript')).javascript({ jsx: true });
    case 'typescript':
      return (await import('@codemirror/lang-javascript')).javascript({ jsx: true, typescript: true });
    case 'python':
      return (await import('@codemirror/lang-python')).python();
    case 'rust':
      return (await import('@codemirror/lang-rust')).rust();
    case 'markdown':
      return (await import('@codemirror/lang-markdown')).markdown();
    case 'html':
      return (await import('@codemirror/lang-html')).html();
    case 'css':
      return (await import('@codemirror/lang-css')).css();
    case 'json':
      return (await import('@codemirror/lang-json')).json();
    case 'sql':
      return (await import('@codemirror/lang-sql')).sql();
    case 'plain':
      return null;
  }
}

export default function Code({ room, root, editable, title }: { room: Room; root: string; editable: boolean; title: string }) {
  const place = useRef<HTMLDivElement>(null);
  const [made, setMade] = useState<{ view: EditorView; undo: Y.UndoManager; access: Compartment; grammar: Compartment } | null>(null);
  const language = languageOf(title);

  useEffect(() => {
    const text = room.doc.getText(root);
    const undo = new Y.UndoManager(text); // Tracks what comes from this editor only: undo is per user.
    const access = new Compartment();
    const grammar = new Compartment();
    const view = new EditorView({
      parent: place.current!,
      state: EditorState.create({
        doc: text.toString(),
        extensions: [
          EditorView.cspNonce.of(document.querySelector<HTMLMetaElement>('meta[property=csp-nonce]')?.nonce ?? ''),
          EditorState.lineSeparator.of('\n'), // A "\r" stays a character: positions are those of the Y.Text.
          lineNumbers(),
          foldGutter(),
          highlightActiveLine(),
          highlightActiveLineGutter(),
          drawSelection(),
          dropCursor(),
          EditorView.lineWrapping,
          indentOnInput(),
          bracketMatching(),
          closeBrackets(),
          autocompletion(),
          EditorState.phrases.of(PHRASES),
          search({ top: true }),
          highlightSelectionMatches(),
          syntaxHighlighting(codeColours),
          syntaxHighlighting(defaultHighlightStyle, { fallback: true }),
          codeTheme,
          keymap.of([...yUndoManagerKeymap, ...closeBracketsKeymap, ...defaultKeymap, ...searchKeymap, ...foldKeymap, ...completionKeymap, indentWithTab]),
          yCollab(text, null, { undoManager: undo }),
          remoteCarets(text, room.awareness),
          grammar.of([]),
          access.of(accessTo(editable)),
          // With a tabindex a reader has a focus too, and so a caret that others see.
          EditorView.contentAttributes.of({ 'aria-label': 'Code', tabindex: '0' }),
        ],
      }),
    });
    if (editable) view.focus();
    setMade({ view, undo, access, grammar });
    return () => {
      view.destroy();
      undo.destroy();
    };
  }, [room, root]);

  useEffect(() => {
    made?.view.dispatch({ effects: made.access.reconfigure(accessTo(editable)) });
  }, [made, editable]);

  useEffect(() => {
    if (!made) return;
    let stale = false;
    load(language).then(
      (support) => {
        if (!stale) made.view.dispatch({ effects: made.grammar.reconfigure(support ?? []) });
      },
      () => {
        // Without colours it is still an editor.
      },
    );
    return () => {
      stale = true;
    };
  }, [made, language]);

  return (
    <div class="editor">
      {made && editable && <CodeBar view={made.view} undo={made.undo} language={LANGUAGE_WORDS[language]} />}
      <div ref={place} class="code-paper" />
    </div>
  );
}

function accessTo(editable: boolean) {
  return [EditorState.readOnly.of(!editable), EditorView.editable.of(editable)];
}

function CodeBar({ view, undo, language }: { view: EditorView; undo: Y.UndoManager; language: string }) {
  const [, setTurn] = useState(0);
  useEffect(() => {
    const redraw = () => setTurn((turn) => turn + 1);
    const events = ['stack-item-added', 'stack-item-popped', 'stack-cleared'] as const;
    for (const event of events) undo.on(event, redraw);
    return () => {
      for (const event of events) undo.off(event, redraw);
    };
  }, [undo]);
  const press = (run: () => void) => () => {
    run();
    view.focus();
  };
  return (
    <Toolbar label="Editing">
      <ToolbarButton label="Undo" keys={keys('mod Z')} disabled={!undo.canUndo()} onPress={press(() => undo.undo())}>
        <Icon name="undo" />
      </ToolbarButton>
      <ToolbarButton label="Redo" keys={keys('mod shift Z')} disabled={!undo.canRedo()} onPress={press(() => undo.redo())}>
        <Icon name="redo" />
      </ToolbarButton>
      <span class="toolbar-note" title="From the ending of the title. Escape, then Tab leaves the editor.">
        {language}
      </span>
    </Toolbar>
  );
}
