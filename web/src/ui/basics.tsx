import type { ComponentChildren, JSX } from "preact";
import { signal } from "@preact/signals";
import { useEffect, useId, useRef } from "preact/hooks";
import { sentenceOf } from "../api/errors";
import { Icon } from "./icon";

const politeText = signal("");

/** Says something to screen readers once they are done with what they are saying. */
export function announce(text: string): void {
  politeText.value = politeText.value === text ? `${text}\u00a0` : text;
}

/** The page's one polite live region; must be there before something is announced. */
export const LiveRegion = () => (
  <div class="visually-hidden" role="status" aria-live="polite">
    {politeText}
  </div>
);

/** Why something failed, in a sentence, read out at once; nothing when nothing failed. */
export function ErrorNote({ error, retry, children }: { error: unknown; retry?: () => void; children?: ComponentChildren }) {
  return (
    <div role="alert">
      {error !== undefined && error !== null && (
        <div class="note note-error">
          <Icon name="alert" size={20} />
          <div>
            <p>{typeof error === "string" ? error : sentenceOf(error)}</p>
            {children}
          </div>
          {retry && (
            <button type="button" class="button small" onClick={retry}>
              Try again
            </button>
          )}
        </div>
      )}
    </div>
  );
}

type InputProps = "name" | "autocomplete" | "required" | "minLength" | "maxLength" | "pattern" | "inputMode" | "min" | "max" | "dir";

interface FieldProps extends Pick<JSX.IntrinsicElements["input"], InputProps> {
  readonly label: string;
  readonly hint?: string;
  readonly type?: "text" | "email" | "password" | "number" | "datetime-local";
  readonly value: string;
  readonly onText: (text: string) => void;
}

/** A labelled line of text. */
export function Field({ label, hint, type = "text", onText, ...input }: FieldProps) {
  const id = useId();
  // The types of JSX know only one `type` at a time.
  const attributes = { type, ...input } as JSX.IntrinsicElements["input"];
  return (
    <div class="field">
      <label for={id}>{label}</label>
      <input id={id} aria-describedby={hint ? `${id}-hint` : undefined} onInput={(event) => onText(event.currentTarget.value)} {...attributes} />
      {hint && (
        <p class="hint" id={`${id}-hint`}>
          {hint}
        </p>
      )}
    </div>
  );
}

interface SelectProps {
  readonly label: string;
  readonly value: string;
  readonly options: readonly (readonly [value: string, text: string])[];
  readonly onPick: (value: string) => void;
  readonly hideLabel?: boolean;
}

export function Select({ label, value, options, onPick, hideLabel }: SelectProps) {
  const id = useId();
  return (
    <div class="field">
      <label for={id} class={hideLabel ? "visually-hidden" : undefined}>
        {label}
      </label>
      <select id={id} value={value} onChange={(event) => onPick(event.currentTarget.value)}>
        {options.map(([value, text]) => (
          <option key={value} value={value}>
            {text}
          </option>
        ))}
      </select>
    </div>
  );
}

/** A bar from 0 to 1, named for screen readers. */
export function Progress({ value, label, thin }: { value: number; label: string; thin?: boolean }) {
  const percent = Math.round(Math.max(0, Math.min(1, value)) * 100);
  return (
    <div class={thin ? "progress thin" : "progress"} role="progressbar" aria-label={label} aria-valuemin={0} aria-valuemax={100} aria-valuenow={percent}>
      <span style={{ width: `${percent}%` }} />
    </div>
  );
}

/** A modal dialog of the browser: it keeps the focus, gives it back, and closes on Escape. */
export function Dialog({ title, onClose, children }: { title: string; onClose: () => void; children: ComponentChildren }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const id = useId();
  useEffect(() => {
    dialog.current?.showModal();
    return () => dialog.current?.close();
  }, []);
  return (
    <dialog ref={dialog} aria-labelledby={id} onClose={onClose} onClick={(event) => event.target === event.currentTarget && onClose()}>
      <div class="dialog-body">
        <header>
          <h2 id={id}>{title}</h2>
          <button type="button" class="button icon-only quiet" aria-label="Close" onClick={onClose}>
            <Icon name="close" />
          </button>
        </header>
        {children}
      </div>
    </dialog>
  );
}

/** Says that something is on its way, but only when it takes long enough to be noticed. */
export const Loading = ({ what }: { what: string }) => (
  <p class="loading" role="status">
    <span class="spinner" aria-hidden="true" /> Loading {what}…
  </p>
);

/** State in a word, with a sign besides the colour. */
export function Badge({ tone, children }: { tone: "good" | "busy" | "bad" | "plain"; children: ComponentChildren }) {
  const icon = { good: "check", busy: "clock", bad: "alert", plain: undefined } as const;
  const name = icon[tone];
  return (
    <span class={`badge ${tone}`}>
      {name && <Icon name={name} size={14} />}
      {children}
    </span>
  );
}

/** A browser puts the focus on a page it opens; from the second on it is ours to do. */
let opened = false;

/** The title of the page, also of the window; takes the focus when the page changes, so that readers start here. */
export function Heading({ children, text, hidden }: { children?: ComponentChildren; text: string; hidden?: boolean }) {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    document.title = `${text} · Kino`;
    const free = document.activeElement === document.body || document.activeElement === null;
    if (opened && free) heading.current?.focus({ preventScroll: true });
    opened = true;
  }, [text]);
  return (
    <h1 ref={heading} tabIndex={-1} class={hidden ? "visually-hidden" : undefined}>
      {children ?? text}
    </h1>
  );
}
