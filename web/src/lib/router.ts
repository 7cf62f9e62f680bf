import { computed, signal } from "@preact/signals";

/** Where the page is: path segments and query of the hash, `#/titles/x?play=1` → `["titles", "x"]`, `play=1`. */
export interface Place {
  readonly path: readonly string[];
  readonly query: URLSearchParams;
}

export function parsePlace(hash: string): Place {
  const [path = "", query = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  return { path: path.split("/").filter(Boolean).map(decode), query: new URLSearchParams(query) };
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

const hash = signal(location.hash);
addEventListener("hashchange", () => (hash.value = location.hash));

export const place = computed(() => parsePlace(hash.value));

export function go(path: string, options: { replace?: boolean } = {}): void {
  if (options.replace) {
    history.replaceState(null, "", `#${path}`);
    hash.value = location.hash;
  } else location.hash = path;
}
