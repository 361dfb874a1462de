import { Annotation, type Extension, type Range } from '@codemirror/state';
import { Decoration, EditorView, ViewPlugin, WidgetType, type DecorationSet, type ViewUpdate } from '@codemirror/view';
import type { Awareness } from 'y-protocols/awareness';
import * as Y from 'yjs';
import { personOf } from '../collaboration/people';

/**
 * The carets of others, in the awareness field `cursor` that y-codemirror.next uses too, so that its users are seen and see us.
 *
 * Its own plug-in is not used because it writes what others claim as their colour into style attributes, which our content
 * security policy forbids, and rightly.
 */
export function remoteCarets(text: Y.Text, awareness: Awareness): Extension {
  const moved = Annotation.define<true>();

  return ViewPlugin.define(
    (view) => {
      const onAwareness = ({ added, updated, removed }: Record<'added' | 'updated' | 'removed', number[]>) => {
        if ([...added, ...updated, ...removed].some((client) => client !== awareness.clientID)) view.dispatch({ annotations: moved.of(true) });
      };
      awareness.on('change', onAwareness);
      return {
        carets: draw(view),
        update(update: ViewUpdate) {
          tell(update.view);
          const isMoved = update.transactions.some((transaction) => transaction.annotation(moved));
          if (isMoved || update.docChanged) this.carets = draw(update.view);
        },
        destroy() {
          awareness.off('change', onAwareness);
          if (awareness.getLocalState()) awareness.setLocalStateField('cursor', null);
        },
      };
    },
    { decorations: (plugin) => plugin.carets },
  );

  /** Tells others where the caret of this user is. It stays where it was while the window is not in front. */
  function tell(view: EditorView): void {
    const own = awareness.getLocalState();
    if (!own || !view.hasFocus) return;
    const { anchor, head } = view.state.selection.main;
    const cursor = { anchor: Y.createRelativePositionFromTypeIndex(text, anchor), head: Y.createRelativePositionFromTypeIndex(text, head) };
    if (JSON.stringify(own.cursor) !== JSON.stringify(cursor)) awareness.setLocalStateField('cursor', cursor);
  }

  function draw(view: EditorView): DecorationSet {
    const length = view.state.doc.length;
    const decorations: Range<Decoration>[] = [];
    for (const [clientId, state] of awareness.getStates()) {
      if (clientId === awareness.clientID) continue;
      const anchor = position(state.cursor?.anchor);
      const head = position(state.cursor?.head);
      // The text of CodeMirror may be a step behind the document's while an update is being applied.
      if (anchor === null || head === null || anchor > length || head > length) continue;
      const person = personOf(clientId, state, awareness.clientID);
      if (anchor !== head) {
        const mark = Decoration.mark({ class: 'remote-selection', attributes: { style: `--who: ${person.colour}` } });
        decorations.push(mark.range(Math.min(anchor, head), Math.max(anchor, head)));
      }
      const onFirstLine = view.state.doc.lineAt(head).number === 1;
      decorations.push(Decoration.widget({ widget: new Caret(person.colour, person.name, head, onFirstLine), side: head > anchor ? -1 : 1 }).range(head));
    }
    return Decoration.set(decorations, true);
  }

  function position(claimed: unknown): number | null {
    if (!claimed || !text.doc) return null;
    try {
      const absolute = Y.createAbsolutePositionFromRelativePosition(Y.createRelativePositionFromJSON(claimed), text.doc);
      return absolute?.type === text ? absolute.index : null;
    } catch {
      return null; // Whatever it is, it is no position.
    }
  }
}

class Caret extends WidgetType {
  constructor(
    private readonly colour: string,
    private readonly name: string,
    private readonly head: number,
    private readonly onFirstLine: boolean,
  ) {
    super();
  }

  /** A caret that moved is a new one: its name shows again, and fades when it rests (it covers code). */
  override eq(other: Caret): boolean {
    return other.colour === this.colour && other.name === this.name && other.head === this.head && other.onFirstLine === this.onFirstLine;
  }

  toDOM(): HTMLElement {
    const caret = document.createElement('span');
    // Above the first line there is no room for a name.
    caret.className = this.onFirstLine ? 'remote-caret below' : 'remote-caret';
    caret.style.setProperty('--who', this.colour);
    const label = document.createElement('span');
    label.className = 'remote-name';
    label.textContent = this.name;
    caret.append(label);
    return caret;
  }

  override ignoreEvent(): boolean {
    return true;
  }
}
