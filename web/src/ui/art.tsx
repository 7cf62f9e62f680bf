import type { Artwork } from "kino-stubs/kino/catalog/v1/resources_pb.js";
import { CoverArt } from "./cover";

interface ArtProps {
  readonly name: string;
  readonly displayName: string;
  readonly artwork?: Artwork | undefined;
  readonly large?: boolean;
}

/** The picture of a title or series; one made from its name where it has none. Decoration: its name stands beside it. */
export const Art = ({ name, displayName, artwork, large }: ArtProps) =>
  artwork ? (
    <img class="cover" src={large ? artwork.largePath : artwork.smallPath} alt="" loading="lazy" decoding="async" />
  ) : (
    <CoverArt name={name} displayName={displayName} />
  );
