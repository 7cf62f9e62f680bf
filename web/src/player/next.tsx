import { useEffect, useState } from "preact/hooks";
import type { Title } from "kino-stubs/kino/catalog/v1/resources_pb.js";
import { api } from "../api/clients";
import { useLoad } from "../lib/load";
import { Art } from "../ui/art";
import { Icon } from "../ui/icon";

/** The next episode begins by itself after so long. */
const WAIT_S = 10;

/** After the end of an episode: the one after it, which begins unless somebody stays. */
export function NextEpisode({ title, onNext }: { title: Title; onNext: (title: string) => void }) {
  const { value: episode } = useLoad(async (signal) => (await api.series.getNextEpisode({ title: title.name }, { signal })).episode, [title.name]);
  const [leftS, setLeft] = useState(WAIT_S);
  const [stay, setStay] = useState(false);
  const waiting = episode !== undefined && !stay;
  useEffect(() => {
    if (!waiting) return;
    const timer = setInterval(() => setLeft((s) => s - 1), 1000);
    return () => clearInterval(timer);
  }, [waiting]);
  useEffect(() => {
    if (waiting && leftS <= 0) onNext(episode.title);
  }, [waiting, leftS]);
  if (!waiting || !episode.details) return null;
  return (
    <div class="next-episode" role="region" aria-label="Next episode">
      <div class="episode-art">
        <Art name={episode.title} displayName={episode.details.displayName} artwork={episode.details.artwork} />
      </div>
      <div>
        <p class="dim">Next in {Math.max(1, leftS)} s</p>
        <p dir="auto">
          <strong>
            {episode.number}. {episode.details.displayName}
          </strong>
        </p>
        <div class="buttons">
          <button type="button" class="button primary small" onClick={() => onNext(episode.title)}>
            <Icon name="play" size={18} /> Play now
          </button>
          <button type="button" class="button small glass" onClick={() => setStay(true)}>
            Stay here
          </button>
        </div>
      </div>
    </div>
  );
}
