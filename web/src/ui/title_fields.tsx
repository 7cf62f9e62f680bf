import { useId } from "preact/hooks";
import { Field } from "./basics";

/** A title's words as they are typed. */
export interface TitleText {
  readonly displayName: string;
  readonly description: string;
  readonly releaseYear: string;
  readonly genres: string;
}

/** As the catalog takes them. */
export const titleText = (text: TitleText) => ({
  displayName: text.displayName.trim(),
  description: text.description.trim(),
  releaseYear: Number(text.releaseYear) || 0,
  genres: [...new Set(text.genres.split(",").map((genre) => genre.trim()).filter(Boolean))],
});

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
