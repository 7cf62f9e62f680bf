import { useEffect, useRef } from "preact/hooks";
import { session } from "../api/clients";
import { go, place } from "../lib/router";
import { isDark, theme, toggleTheme } from "../lib/theme";
import { isOperator, isPublisher, profile, signOut, user } from "../state";
import { Icon } from "./icon";

export function Header() {
  const signedIn = session.value !== undefined;
  return (
    <header class="top">
      <a class="brand" href="#/" aria-label="Kino, to the start">
        <svg viewBox="0 0 32 32" width="30" height="30" aria-hidden="true">
          <rect width="32" height="32" rx="9" class="brand-tile" />
          <path d="M9.5 7.5v17M9.5 16h3l10-8.5M12.5 16l10 8.5" class="brand-line" />
        </svg>
        <span>Kino</span>
      </a>
      {signedIn && <SearchBox />}
      {signedIn && <Navigation />}
      <div class="top-end">
        <ThemeButton />
        {signedIn ? <AccountMenu /> : null}
      </div>
    </header>
  );
}

function Navigation() {
  const [first = ""] = place.value.path;
  const links = [
    ["", "Home"],
    ...(isPublisher.value ? [["upload", "Upload"], ["jobs", "Jobs"]] : []),
    ...(isOperator.value ? [["operator", "Operate"]] : []),
  ] as const;
  return (
    <nav aria-label="Main">
      {links.map(([path, text]) => (
        <a key={path} href={`#/${path}`} aria-current={first === path ? "page" : undefined}>
          {text}
        </a>
      ))}
    </nav>
  );
}

/** Finds as one types: the address follows the text, the page follows the address. */
function SearchBox() {
  const input = useRef<HTMLInputElement>(null);
  const { path, query } = place.value;
  const searching = path[0] === "search";
  useEffect(() => {
    const box = input.current;
    if (box && document.activeElement !== box) box.value = searching ? (query.get("q") ?? "") : "";
  }, [searching, query.get("q")]);
  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      const typing = event.target instanceof HTMLElement && event.target.closest("input, textarea, select, [contenteditable], dialog");
      if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
        event.preventDefault();
        input.current?.focus();
      }
    };
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, []);
  const search = (text: string) => {
    const to = text.trim() ? `/search?q=${encodeURIComponent(text.trim())}` : "/";
    go(to, { replace: searching });
  };
  return (
    <form role="search" class="search" onSubmit={(event) => (event.preventDefault(), search(input.current?.value ?? ""))}>
      <Icon name="search" size={20} />
      <input
        ref={input}
        type="search"
        aria-label="Search films"
        placeholder="Search"
        maxLength={200}
        autocomplete="off"
        spellcheck={false}
        onInput={(event) => search(event.currentTarget.value)}
        onKeyDown={(event) => event.key === "Escape" && (event.preventDefault(), (event.currentTarget.value = ""), search(""))}
      />
      <kbd aria-hidden="true">/</kbd>
    </form>
  );
}

function ThemeButton() {
  void theme.value;
  const dark = isDark();
  return (
    <button type="button" class="button icon-only quiet" aria-label={dark ? "Use light colours" : "Use dark colours"} onClick={toggleTheme}>
      <Icon name={dark ? "sun" : "moon"} />
    </button>
  );
}

/** A disclosure of the browser: opens by click, Enter or Space, closes by Escape or a click elsewhere. */
function AccountMenu() {
  const details = useRef<HTMLDetailsElement>(null);
  const name = profile.value?.displayName ?? user.value?.displayName ?? "Account";
  useEffect(() => {
    const close = (event: Event) => {
      const box = details.current;
      if (!box?.open) return;
      if (event instanceof KeyboardEvent) {
        if (event.key !== "Escape") return;
        box.querySelector("summary")?.focus();
      } else if (event.type === "click" && box.querySelector("summary")?.contains(event.target as Node)) return;
      box.open = false;
    };
    document.addEventListener("click", close);
    document.addEventListener("keydown", close);
    return () => (document.removeEventListener("click", close), document.removeEventListener("keydown", close));
  }, []);
  return (
    <details class="menu" ref={details}>
      <summary aria-label={`Account of ${name}`}>
        <span class="avatar" aria-hidden="true">
          {[...name][0]?.toLocaleUpperCase()}
        </span>
      </summary>
      <div class="menu-list">
        <p class="menu-who">
          <strong>{name}</strong>
          <span>{user.value?.email}</span>
        </p>
        <a href="#/account">
          <Icon name="user" size={18} /> Account and plan
        </a>
        <a href="#/profiles">
          <Icon name="film" size={18} /> Who is watching
        </a>
        <button type="button" onClick={() => void signOut().then(() => go("/"))}>
          <Icon name="out" size={18} /> Sign out
        </button>
      </div>
    </details>
  );
}
