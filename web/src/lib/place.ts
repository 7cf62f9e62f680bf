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
