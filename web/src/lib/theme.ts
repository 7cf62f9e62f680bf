import { effect, signal } from "@preact/signals";

export type Theme = "auto" | "light" | "dark";
const KEY = "kino.theme";

const stored = localStorage.getItem(KEY);
export const theme = signal<Theme>(stored === "light" || stored === "dark" ? stored : "auto");

effect(() => {
  const chosen = theme.value;
  if (chosen === "auto") {
    localStorage.removeItem(KEY);
    delete document.documentElement.dataset["theme"];
  } else {
    localStorage.setItem(KEY, chosen);
    document.documentElement.dataset["theme"] = chosen;
  }
});

const dark = matchMedia("(prefers-color-scheme: dark)");
export const isDark = (): boolean => (theme.value === "auto" ? dark.matches : theme.value === "dark");

/** Changes to the other look; back to the system's own when that is the same. */
export function toggleTheme(): void {
  const wanted = isDark() ? "light" : "dark";
  theme.value = dark.matches === (wanted === "dark") ? "auto" : wanted;
}
