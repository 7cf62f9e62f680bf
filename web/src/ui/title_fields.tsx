import { useId } from "preact/hooks";
import { Field } from "./basics";
import type { TitleText } from "../lib/title_text";

export function TitleFields({ value, onChange }: { value: TitleText; onChange: (value: TitleText) => void }) {
  const id = useId();
  const set = (field: keyof TitleText) => (text: string) => onChange({ ...value, [field]: text });
  return (
    <>
      <Field label="Title" required maxLength={500} dir="auto" value={value.displayName} onText={set("displayName")} />
      <div class="field">
        <label for={id}>Description</label>
        <textarea id={id} rows={3} maxLength={10000} dir="auto" value={value.description} onInput={(event) => set("description")(event.currentTarget.value)} />
      </div>
      <div class="two">
        <Field label="Year" type="number" min={1870} max={2200} value={value.releaseYear} onText={set("releaseYear")} />
        <Field label="Genres" hint="Separated by commas" value={value.genres} onText={set("genres")} />
      </div>
    </>
  );
}
