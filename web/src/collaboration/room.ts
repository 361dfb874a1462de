import { HocuspocusProvider, HocuspocusProviderWebsocket } from '@hocuspocus/provider';
import * as Y from 'yjs';
import * as api from '../api';
import * as session from '../session';
import { Store } from '../store';
import { UnsavedCounter, saveState, SLOW_AFTER_MS, type ConnectionFacts, type SaveState } from './save-state';
import { freeColour, peopleIn, type Person } from './people';

/** Why the server does not let this user into the document, as far as the page can do something about it. */
export type Refusal = 'deleted' | 'not-found' | 'forbidden' | 'signed-out';

export interface RoomState {
  save: SaveState;
  /** The document's content is here: the editor may be shown. */
  loaded: boolean;
  /** What the server said last about writing. */
  mayWrite: boolean;
  refusal: Refusal | null;
  people: Person[];
}

/** If only the connection was refused, it is tried again after this long: rights may have changed in between. */
const ASK_AGAIN_MS = 3_000;

/** The close code of a connection that this page ended itself. */
const LEFT = 1000;

/** One open document: its content, its connection, and what may be said about both. */
export class Room {
  readonly doc = new Y.Doc();
  readonly state: Store<RoomState>;
  readonly awareness;

  private readonly socket: HocuspocusProviderWebsocket;
  private readonly provider: HocuspocusProvider;
  private readonly unsaved = new UnsavedCounter();
  private facts: ConnectionFacts = {
    socketOpen: false,
    browserOnline: navigator.onLine,
    synced: false,
    everSynced: false,
    access: null,
    unsaved: 0,
    slow: false,
  };
  private slowTimer: number | undefined;
  private askAgain: number | undefined;
  /** Counts connections. What is learned about one of them says nothing about the next. */
  private connection = 0;
  private closed = false;

  constructor(
    readonly documentId: string,
    me: { name: string; colour: string },
  ) {
    this.state = new Store<RoomState>({ save: saveState(this.facts), loaded: false, mayWrite: false, refusal: null, people: [] });
    this.socket = new HocuspocusProviderWebsocket({
      url: `${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/collab`,
      maxDelay: 10_000, // A person waits for this: half a minute is too long.
      autoConnect: false,
    });
    this.provider = new HocuspocusProvider({
      websocketProvider: this.socket,
      name: documentId,
      document: this.doc,
      token: () => session.session.value?.token ?? '',
      onOpen: () => this.opened(),
      onAuthenticated: ({ scope }) => this.learn({ access: scope === 'readonly' ? 'readonly' : 'read-write' }),
      onAuthenticationFailed: () => void this.askWhy(),
      onSynced: () => {
        clearTimeout(this.askAgain);
        this.learn({ synced: this.provider.synced, everSynced: true });
      },
      onUnsyncedChanges: ({ number }) => {
        this.unsaved.provider(number);
        this.learn({});
      },
      onDisconnect: ({ event }) => this.disconnected(event?.code === LEFT),
      // The server ended this document but not the socket. The end of a socket arrives here too, after `onDisconnect`.
      onClose: () => {
        if (this.socket.webSocket?.readyState !== WebSocket.OPEN) return;
        this.learn({ synced: false });
        void this.askWhy();
      },
    });
    this.provider.attach();
    this.awareness = this.provider.awareness!;
    this.awareness.setLocalStateField('user', { name: me.name, color: me.colour });
    this.awareness.on('change', this.onPeople);
    this.doc.on('update', this.onUpdate);
    window.addEventListener('online', this.onNetwork);
    window.addEventListener('offline', this.onNetwork);
    window.addEventListener('beforeunload', this.onLeave);
    this.onPeople();
    void this.connect();
  }

  /** How others see this user from now on. */
  present(me: { name: string; colour: string }): void {
    this.awareness.setLocalStateField('user', { name: me.name, color: me.colour });
  }

  /** Tries once more after a refusal, with whatever rights there are now. */
  retry(): void {
    if (this.closed) return;
    this.state.set({ ...this.state.value, refusal: null });
    this.leave();
    void this.connect();
  }

  close(): void {
    this.closed = true;
    clearTimeout(this.slowTimer);
    clearTimeout(this.askAgain);
    window.removeEventListener('online', this.onNetwork);
    window.removeEventListener('offline', this.onNetwork);
    window.removeEventListener('beforeunload', this.onLeave);
    this.provider.destroy();
    this.socket.destroy();
    this.doc.destroy();
  }

  /** Asks first whether there is such a document: a connection would create one of this id, where that is allowed. */
  private async connect(): Promise<void> {
    await this.askWhy();
    if (!this.closed && this.state.value.refusal === null) void this.socket.connect();
  }

  private opened(): void {
    this.connection += 1;
    clearTimeout(this.askAgain);
    // Updates typed without a connection wait in the provider's queue, but the handshake carries them too. Sent twice, they would be
    // confirmed twice, and the first confirmation would be taken for that of the handshake: "saved" before it is true.
    (this.socket as unknown as { messageQueue: unknown[] }).messageQueue = [];
    this.unsaved.opened();
    this.learn({ socketOpen: true, synced: false });
  }

  private disconnected(byMe: boolean): void {
    // When the provider gives up a silent socket, it forgets to tell itself. It would go on believing that it is synced, and never
    // say so of the next connection.
    this.provider.onClose();
    this.learn({ socketOpen: false, synced: false });
    if (!byMe) void this.askWhy();
  }

  /**
   * Ends the connection immediately. The closing handshake of its socket may take long, without a network above all; whatever
   * arrives from that socket afterwards, its close included, counts for nothing.
   */
  private leave(): void {
    this.connection += 1;
    clearTimeout(this.askAgain);
    this.socket.disconnect(); // No reconnecting by itself ...
    this.socket.onClose({ event: { code: LEFT, reason: 'left' } }); // ... and no waiting for the other side.
  }

  private readonly onUpdate = (_update: Uint8Array, origin: unknown) => {
    if (origin === this.provider) return;
    this.unsaved.changed();
    this.learn({});
  };

  private readonly onPeople = () => {
    const people = peopleIn(this.awareness);
    // Two people in one colour are hard to tell apart: the one who came with the higher id takes another.
    const me = people.find((person) => person.isMe);
    const older = people.filter((person) => person.clientId < this.awareness.clientID).map((person) => person.colour);
    if (me && older.includes(me.colour)) {
      const colour = freeColour(me.colour, people.filter((person) => !person.isMe).map((person) => person.colour));
      if (colour !== me.colour) return this.present({ name: me.name, colour });
    }
    this.state.set({ ...this.state.value, people });
  };

  private readonly onNetwork = () => {
    const wasOnline = this.facts.browserOnline;
    this.learn({ browserOnline: navigator.onLine });
    if (!navigator.onLine || wasOnline || this.state.value.refusal) return;
    // A socket from before the network went away may look open for minutes without being so.
    this.leave();
    void this.socket.connect();
  };

  private readonly onLeave = (event: BeforeUnloadEvent) => {
    if (this.unsaved.count > 0) event.preventDefault();
  };

  private learn(news: Partial<ConnectionFacts>): void {
    if (this.closed) return;
    const unsaved = this.unsaved.count;
    this.facts = { ...this.facts, ...news, unsaved };
    const waits = unsaved > 0 && this.facts.socketOpen && this.facts.synced;
    if (!waits) {
      clearTimeout(this.slowTimer);
      this.slowTimer = undefined;
      this.facts.slow = false;
    } else {
      this.slowTimer ??= window.setTimeout(() => this.learn({ slow: true }), SLOW_AFTER_MS);
    }
    const { refusal, people } = this.state.value;
    this.state.set({
      save: saveState(this.facts),
      loaded: this.facts.everSynced,
      mayWrite: this.facts.access === 'read-write' && refusal === null,
      refusal,
      people,
    });
  }

  /** The connection was refused or ended: the REST interface says why in a way that a person can be told. */
  private async askWhy(): Promise<void> {
    if (this.closed || !navigator.onLine) return;
    const asked = this.connection;
    let refusal: Refusal | null = null;
    try {
      await api.document(this.documentId);
    } catch (error) {
      if (!(error instanceof api.Refused)) return; // The server is away: the provider keeps trying.
      if (error.status === 401) refusal = 'signed-out';
      else if (error.status === 403) refusal = 'forbidden';
      else if (error.status === 410) refusal = 'deleted';
      else if (error.status === 404) refusal = 'not-found';
    }
    // The answer is about a connection that is gone: if the next one is refused, it asks itself.
    if (this.closed || asked !== this.connection) return;
    if (refusal) {
      this.leave();
      this.state.set({ ...this.state.value, refusal, mayWrite: false });
    } else if (this.facts.socketOpen && !this.facts.synced) {
      clearTimeout(this.askAgain);
      this.askAgain = window.setTimeout(() => this.retry(), ASK_AGAIN_MS);
    }
  }
}
