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
