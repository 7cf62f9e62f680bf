import { Title_State } from "kino-stubs/kino/catalog/v1/resources_pb.js";
import { idOf } from "../state";
import { Progress } from "./basics";
import { CoverArt } from "./cover";
import { Icon } from "./icon";

export interface CardProps {
  readonly name: string;
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
export function Card({ name, displayName, details = [], state, watched, play }: CardProps) {
  const note = state === undefined ? undefined : STATE_NOTES[state];
  return (
    <article class="card">
      <a href={`#/titles/${idOf(name)}${play ? "?play" : ""}`}>
        <div class="card-art">
          <CoverArt name={name} displayName={displayName} />
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
