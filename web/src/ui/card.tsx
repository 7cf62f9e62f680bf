import { Title_State, type Artwork } from "kino-stubs/kino/catalog/v1/resources_pb.js";
import { Progress } from "./basics";
import { Art } from "./art";
import { Icon } from "./icon";

export interface CardProps {
  /** `titles/…` or `series/…`. */
  readonly name: string;
  readonly artwork?: Artwork | undefined;
  /** Something to know before its state, such as "Not published". */
  readonly note?: string | undefined;
  readonly displayName: string;
  /** Under the title: year, length, time left. */
  readonly details?: readonly string[];
  readonly state?: Title_State | undefined;
  /** Share watched, 0 to 1. */
  readonly watched?: number;
  /** Plays at once instead of showing the title first. */
  readonly play?: boolean;
}

const STATE_NOTES: Readonly<Partial<Record<Title_State, string>>> = {
  [Title_State.CREATED]: "No film yet",
  [Title_State.PROCESSING]: "Processing",
  [Title_State.PLAYABLE]: "Still encoding",
  [Title_State.FAILED]: "Failed",
};

/** A title in a row or grid: one link, named by the title. */
export function Card({ name, displayName, artwork, details = [], state, watched, play, note: given }: CardProps) {
  const note = given ?? (state === undefined ? undefined : STATE_NOTES[state]);
  return (
    <article class="card">
      <a href={`#/${name}${play ? "?play" : ""}`}>
        <div class="card-art">
          <Art name={name} displayName={displayName} artwork={artwork} />
          <span class="card-play" aria-hidden="true">
            <Icon name="play" size={28} />
          </span>
          {note && <span class="card-note">{note}</span>}
          {watched !== undefined && <Progress thin value={watched} label="Watched" />}
        </div>
        <h3 dir="auto">{displayName}</h3>
        {details.length > 0 && <p>{details.join(" · ")}</p>}
      </a>
    </article>
  );
}
