import { useState } from "preact/hooks";
import type { Profile } from "kino-stubs/kino/identity/v1/resources_pb.js";
import { api, session } from "../api/clients";
import { useAct } from "../lib/load";
import { once } from "../lib/request_id";
import { go } from "../lib/router";
import { coverOf } from "../lib/cover";
import { chooseProfile, loadAccount, profiles } from "../state";
import { Dialog, ErrorNote, Field, Heading } from "../ui/basics";
import { Icon } from "../ui/icon";

const MAX_PROFILES = 10;

export function ProfilesPage() {
  const [adding, setAdding] = useState(false);
  const [removing, setRemoving] = useState<Profile | undefined>(undefined);
  const all = profiles.value ?? [];
  const choose = (one: Profile) => {
    chooseProfile(one.name);
    go("/", { replace: true });
  };
  return (
    <section class="who">
      <Heading text="Who is watching?" />
      <ul class="faces">
        {all.map((one) => (
          <li key={one.name}>
            <button type="button" class="face" onClick={() => choose(one)}>
              <Face profile={one} />
              <span>{one.displayName}</span>
            </button>
            {all.length > 1 && (
              <button type="button" class="button small quiet" aria-label={`Delete ${one.displayName}`} onClick={() => setRemoving(one)}>
                Delete
              </button>
            )}
          </li>
        ))}
        {all.length < MAX_PROFILES && (
          <li>
            <button type="button" class="face" onClick={() => setAdding(true)}>
              <span class="face-tile add">
                <Icon name="plus" size={40} />
              </span>
              <span>Add profile</span>
            </button>
          </li>
        )}
      </ul>
      {adding && <AddProfile onClose={() => setAdding(false)} />}
      {removing && <RemoveProfile profile={removing} onClose={() => setRemoving(undefined)} />}
    </section>
  );
}

function Face({ profile }: { profile: Profile }) {
  const { hue, hue2 } = coverOf(profile.name, profile.displayName);
  return (
    <span class="face-tile" aria-hidden="true" style={{ background: `linear-gradient(140deg, hsl(${hue} 60% 48%), hsl(${hue2} 65% 30%))` }}>
      {[...profile.displayName][0]?.toLocaleUpperCase()}
    </span>
  );
}

function AddProfile({ onClose }: { onClose: () => void }) {
  const [name, setName] = useState("");
  const { busy, error, run } = useAct();
  const submit = async (event: Event) => {
    event.preventDefault();
    const parent = session.value?.user ?? "";
    const displayName = name.trim();
    const done = await run(async () => {
      await once(`profile:${parent}:${displayName}`, (requestId) => api.identity.createProfile({ parent, profile: { displayName }, requestId }));
      await loadAccount();
    });
    if (done) onClose();
  };
  return (
    <Dialog title="Add a profile" onClose={onClose}>
      <form onSubmit={(event) => void submit(event)}>
        <Field label="Name" required maxLength={100} value={name} onText={setName} />
        <ErrorNote error={error} />
        <button class="button primary" disabled={busy || !name.trim()}>
          Add profile
        </button>
      </form>
    </Dialog>
  );
}

function RemoveProfile({ profile, onClose }: { profile: Profile; onClose: () => void }) {
  const { busy, error, run } = useAct();
  const remove = async () => {
    const done = await run(async () => {
      await api.identity.deleteProfile({ name: profile.name });
      await loadAccount();
    });
    if (done) onClose();
  };
  return (
    <Dialog title={`Delete ${profile.displayName}?`} onClose={onClose}>
      <p>Its history and the places where it stopped go with it.</p>
      <ErrorNote error={error} />
      <button type="button" class="button danger" disabled={busy} onClick={() => void remove()}>
        Delete profile
      </button>
    </Dialog>
  );
}
