import { computed, signal } from "@preact/signals";
import { parsePlace } from "./place";

const hash = signal(location.hash);
addEventListener("hashchange", () => (hash.value = location.hash));

export const place = computed(() => parsePlace(hash.value));

export function go(path: string, options: { replace?: boolean } = {}): void {
  if (options.replace) {
    history.replaceState(null, "", `#${path}`);
    hash.value = location.hash;
  } else location.hash = path;
}
