/** A title's words as they are typed. */
export interface TitleText {
  readonly displayName: string;
  readonly description: string;
  readonly releaseYear: string;
  readonly genres: string;
}

type Words = { displayName: string; description: string; releaseYear: number; genres: string[] };

/** As they are shown for editing; empty for something new. */
export const textOf = (words?: Words): TitleText => ({
  displayName: words?.displayName ?? "",
  description: words?.description ?? "",
  releaseYear: words?.releaseYear ? String(words.releaseYear) : "",
  genres: words?.genres.join(", ") ?? "",
});

/** As the catalog takes them. */
export const titleText = (text: TitleText) => ({
  displayName: text.displayName.trim(),
  description: text.description.trim(),
  releaseYear: Number(text.releaseYear) || 0,
  genres: [...new Set(text.genres.split(",").map((genre) => genre.trim()).filter(Boolean))],
});
