import type { Session } from "kino-stubs/kino/identity/v1/resources_pb.js";
import { Role } from "kino-stubs/kino/identity/v1/resources_pb.js";

/** What the page remembers of a session, under one key of local storage. */
export interface StoredSession {
  readonly user: string;
  readonly role: Role;
  readonly accessToken: string;
  readonly refreshToken: string;
  /** When to refresh, on this machine's clock. */
  readonly refreshAfterMs: number;
}

/** The store all tabs share: `localStorage`, or anything like it. */
export type Storage = Pick<globalThis.Storage, "getItem" | "setItem" | "removeItem">;

/** Runs one function at a time among all tabs; `navigator.locks`, or a queue of this tab where there are none. */
export type Exclusive = <T>(run: () => Promise<T>) => Promise<T>;

export const SESSION_KEY = "kino.session";

/** Share of an access token's life after which it is replaced. */
const REFRESH_AT = 0.8;

/**
 * Keeps the session: hands out an access token and replaces it in time. A refresh token works once, so among all tabs
 * one refreshes and the others take its result.
 */
export class SessionKeeper {
  constructor(
    private readonly storage: Storage,
    private readonly exclusive: Exclusive,
    /** Exchanges a refresh token; undefined when the server says that the session is over. */
    private readonly exchange: (refreshToken: string) => Promise<Session | undefined>,
    private readonly nowMs: () => number,
    private readonly changed: () => void = () => {},
  ) {}

  current(): StoredSession | undefined {
    const text = this.storage.getItem(SESSION_KEY);
    return text ? (JSON.parse(text) as StoredSession) : undefined;
  }

  keep(session: Session): void {
    const stored: StoredSession = {
      user: session.user,
      role: session.role,
      accessToken: session.accessToken,
      refreshToken: session.refreshToken,
      refreshAfterMs: this.nowMs() + REFRESH_AT * lifetimeMs(session.accessToken),
    };
    this.storage.setItem(SESSION_KEY, JSON.stringify(stored));
    this.changed();
  }

  forget(): void {
    this.storage.removeItem(SESSION_KEY);
    this.changed();
  }

  /** A token to send, replaced first when it is near its end; undefined when nobody is signed in. */
  async accessToken(): Promise<string | undefined> {
    const stored = this.current();
    if (!stored || this.nowMs() < stored.refreshAfterMs) return stored?.accessToken;
    return this.replace(stored.accessToken);
  }

  /** A token other than `stale`, which the server refused; undefined when the session is over. */
  replace(stale: string): Promise<string | undefined> {
    return this.exclusive(async () => {
      const stored = this.current();
      if (!stored) return undefined;
      if (stored.accessToken !== stale) return stored.accessToken;
      const session = await this.exchange(stored.refreshToken);
      if (session) this.keep(session);
      else this.forget();
      return session?.accessToken;
    });
  }
}

/** How long a token lives by its own claims, so that a wrong clock of this machine does no harm. */
export function lifetimeMs(jwt: string): number {
  try {
    const payload = (jwt.split(".")[1] ?? "").replace(/-/g, "+").replace(/_/g, "/");
    const { iat, exp } = JSON.parse(atob(payload)) as { iat?: number; exp?: number };
    if (iat && exp && exp > iat) return (exp - iat) * 1000;
  } catch {
    // Not a readable token: refresh early, the server decides.
  }
  return 60_000;
}

/** `navigator.locks` where the context is secure; otherwise tabs are on their own and only calls of this one queue up. */
export function exclusiveAcrossTabs(name: string): Exclusive {
  const locks = (navigator as { locks?: LockManager }).locks;
  if (locks) return async (run) => await locks.request(name, run);
  let last: Promise<unknown> = Promise.resolve();
  return (run) => {
    const next = last.then(run, run);
    last = next.catch(() => undefined);
    return next;
  };
}
