import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { isAbort } from "../api/errors";

/** Something that is being fetched: the newest answer, or why there is none. */
export interface Loaded<T> {
  readonly value: T | undefined;
  readonly error: unknown;
  readonly loading: boolean;
  reload(): void;
}

/**
 * Fetches when a component appears and whenever `keys` or `refresh` change; an answer that is not wanted any more is
 * aborted. The old value stays until a new one comes, unless `keys` say that it belongs to something else.
 */
export function useLoad<T>(
  fetch: (signal: AbortSignal) => Promise<T>,
  keys: readonly unknown[],
  refresh: readonly unknown[] = [],
): Loaded<T> {
  const [state, setState] = useState<Omit<Loaded<T>, "reload">>({ value: undefined, error: undefined, loading: true });
  const [round, setRound] = useState(0);
  const key = JSON.stringify(keys);
  const lastKey = useRef(key);
  useEffect(() => {
    const stop = new AbortController();
    const same = lastKey.current === key;
    lastKey.current = key;
    setState((old) => ({ value: same ? old.value : undefined, error: undefined, loading: true }));
    fetch(stop.signal).then(
      (value) => !stop.signal.aborted && setState({ value, error: undefined, loading: false }),
      (error) => !stop.signal.aborted && setState((old) => ({ ...old, error: isAbort(error) ? undefined : error, loading: false })),
    );
    return () => stop.abort();
  }, [key, round, ...refresh]);
  return { ...state, reload: useCallback(() => setRound((n) => n + 1), []) };
}

/** A list that comes in pages. */
export interface Paged<T> extends Loaded<T[]> {
  readonly more: (() => void) | undefined;
}

export function usePages<T>(
  fetch: (pageToken: string, signal: AbortSignal) => Promise<{ items: T[]; nextPageToken: string }>,
  keys: readonly unknown[],
  refresh: readonly unknown[] = [],
): Paged<T> {
  const [tail, setTail] = useState<{ key: string; items: T[]; next: string }>({ key: "", items: [], next: "" });
  const [error, setError] = useState<unknown>(undefined);
  const first = useLoad((signal) => fetch("", signal), keys, refresh);
  const key = JSON.stringify([keys, first.value?.nextPageToken]);
  const current = tail.key === key ? tail : { key, items: [], next: first.value?.nextPageToken ?? "" };
  const more = () =>
    fetch(current.next, new AbortController().signal).then(
      (page) => setTail({ key, items: [...current.items, ...page.items], next: page.nextPageToken }),
      setError,
    );
  return {
    value: first.value && [...first.value.items, ...current.items],
    error: first.error ?? error,
    loading: first.loading,
    reload: first.reload,
    more: current.next ? () => void more() : undefined,
  };
}

/** An act of the user: runs one at a time and keeps why the last one failed. */
export function useAct(): {
  busy: boolean;
  error: unknown;
  run: (act: () => Promise<unknown>) => Promise<boolean>;
} {
  const [state, setState] = useState<{ busy: boolean; error: unknown }>({ busy: false, error: undefined });
  const running = useRef(false);
  const run = useCallback(async (act: () => Promise<unknown>) => {
    if (running.current) return false;
    running.current = true;
    setState({ busy: true, error: undefined });
    try {
      await act();
      setState({ busy: false, error: undefined });
      return true;
    } catch (error) {
      setState({ busy: false, error: isAbort(error) ? undefined : error });
      return false;
    } finally {
      running.current = false;
    }
  }, []);
  return { ...state, run };
}
