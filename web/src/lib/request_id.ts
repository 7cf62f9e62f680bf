import { Code, ConnectError } from "@connectrpc/connect";

/** A random UUID, also where the page is not served from a secure context. */
export function uuid(): string {
  if (typeof crypto.randomUUID === "function") return crypto.randomUUID();
  const raw = crypto.getRandomValues(new Uint8Array(16));
  raw[6] = (raw[6]! & 0x0f) | 0x40;
  raw[8] = (raw[8]! & 0x3f) | 0x80;
  const hex = Array.from(raw, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

/** Answers after which nobody knows whether the call had its effect. */
const UNKNOWN_OUTCOME = new Set([
  Code.Canceled,
  Code.Unknown,
  Code.DeadlineExceeded,
  Code.Aborted,
  Code.Internal,
  Code.Unavailable,
]);

type Store = Pick<Storage, "getItem" | "setItem" | "removeItem">;

/**
 * Makes a call that must have one effect. Its request id is kept until the call is answered, also over a reload, so that
 * trying again finds what was done before. `scope` names the effect and everything sent with it.
 */
export async function once<T>(
  scope: string,
  call: (requestId: string) => Promise<T>,
  store: Store = sessionStorage,
): Promise<T> {
  const key = `kino.request.${scope}`;
  const requestId = store.getItem(key) ?? uuid();
  store.setItem(key, requestId);
  try {
    const answer = await call(requestId);
    store.removeItem(key);
    return answer;
  } catch (error) {
    if (!UNKNOWN_OUTCOME.has(ConnectError.from(error).code)) store.removeItem(key);
    throw error;
  }
}
