/**
 * What the page asks of the server over HTTP. The shapes are those of `/v1/openapi.json`; only what the page uses is written down.
 */
import * as session from './session';

export interface User {
  id: string;
  name: string;
  email: string | null;
}

export type Role = 'viewer' | 'editor' | 'admin';

export interface Project {
  id: string;
  slug: string;
  name: string;
  role: Role;
  is_default: boolean;
  is_archived: boolean;
}

export interface Document {
  id: string;
  project_id: string;
  /** How other clients name the room; stays as it is when the title changes. */
  name: string;
  title: string;
  /** What the caller may do in it. */
  role: Role;
  /** Of name, title and tombstone, not of the content. */
  version: number;
  created_at: string;
  deleted_at: string | null;
}

export interface ServerFacts {
  name: string;
  version: string;
  /** A demo tenant exists and its password lies in the data directory. */
  demo: boolean;
}

/** The server answered, and the answer is no. `code` is stable, `message` is for people. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}

/** No answer came: the server or the network is away. */
export class Unreachable extends Error {
  constructor() {
    super('The server cannot be reached.');
  }
}

interface Call {
  method?: string;
  json?: unknown;
  binary?: Uint8Array;
  headers?: Record<string, string>;
  /** Without the token of the session. */
  anonymous?: boolean;
}

async function call<T>(path: string, { method = 'GET', json, binary, headers = {}, anonymous = false }: Call = {}): Promise<T> {
  const token = anonymous ? undefined : session.session.value?.token;
  const body = json !== undefined ? JSON.stringify(json) : binary;
  let response: Response;
  try {
    response = await fetch(`/v1${path}`, {
      method,
      headers: {
        accept: 'application/json',
        ...(json !== undefined && { 'content-type': 'application/json' }),
        ...(binary && { 'content-type': 'application/octet-stream' }),
        ...(token && { authorization: `Bearer ${token}` }),
        ...headers,
      },
      ...(body !== undefined && { body: body as BodyInit }),
      cache: 'no-store',
    });
  } catch {
    throw new Unreachable();
  }
  if (response.ok) {
    const text = await response.text();
    return (text && response.headers.get('content-type')?.includes('json') ? JSON.parse(text) : undefined) as T;
  }
  const problem = await response.json().catch(() => ({}));
  if (response.status === 401 && token && token === session.session.value?.token) {
    session.end('Your session has ended. Please sign in again.');
  }
  if (response.status === 502 || response.status === 504) throw new Unreachable();
  throw new Refused(response.status, String(problem.code ?? ''), String(problem.detail ?? problem.title ?? `HTTP ${response.status}`));
}

/** Walks through all pages of a list, at most `limit` items. */
async function all<T>(path: string, limit: number): Promise<T[]> {
  const items: T[] = [];
  let cursor: string | null = null;
  do {
    const query: string = cursor ? `${path.includes('?') ? '&' : '?'}cursor=${encodeURIComponent(cursor)}` : '';
    const page: { items: T[]; next_cursor?: string | null } = await call(path + query);
    items.push(...page.items);
    cursor = page.next_cursor ?? null;
  } while (cursor && items.length < limit);
  return items;
}

export const serverFacts = () => call<ServerFacts>('/server', { anonymous: true });

export async function signIn(tenant: string, email: string, password: string, stay: boolean): Promise<void> {
  const answer = await call<{ token: string; expires_at: string; user: User }>('/auth/login', {
    method: 'POST',
    json: { tenant, email, password },
    anonymous: true,
  });
  session.begin({ tenant, token: answer.token, expiresAt: answer.expires_at, user: answer.user }, stay);
}

export async function signOut(): Promise<void> {
  await call('/auth/logout', { method: 'POST' }).catch(() => {
    // The token is forgotten here in any case; unreachable, it ends by its date or by an administrator.
  });
  session.end(null);
}

export const projects = () => all<Project>('/projects?limit=200', 1000);

/** The most documents that the list shows; whoever has more needs a search in the server. */
const DOCUMENTS_MAX = 2000;

/** What the caller sees, newest first; or what was deleted and the caller may restore. */
export const documents = (which: 'living' | 'deleted') =>
  all<Document>(`/documents?limit=200${which === 'deleted' ? '&deleted=true' : ''}`, DOCUMENTS_MAX);

export const document = (id: string) => call<Document>(`/documents/${id}`);

export const createDocument = (projectId: string, title: string) =>
  call<Document>('/documents', { method: 'POST', json: { project_id: projectId, title } });

export const retitleDocument = (of: Document, title: string) =>
  call<Document>(`/documents/${of.id}`, { method: 'PATCH', json: { title }, headers: { 'if-match': `"${of.version}"` } });

export const deleteDocument = (id: string) => call<void>(`/documents/${id}`, { method: 'DELETE' });

export const restoreDocument = (id: string) => call<Document>(`/documents/${id}/restore`, { method: 'POST' });

/** Writes a Yjs update; answered after the commit. */
export const writeUpdate = (id: string, update: Uint8Array) =>
  call<void>(`/documents/${id}/update`, { method: 'POST', binary: update, headers: { 'idempotency-key': crypto.randomUUID() } });
