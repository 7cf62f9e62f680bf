import { computed, effect, signal } from "@preact/signals";
import { type Profile, Role, type User } from "kino-stubs/kino/identity/v1/resources_pb.js";
import { api, keeper, publicApi, session } from "./api/clients";

/** Who is signed in; undefined until known. */
export const user = signal<User | undefined>(undefined);
export const profiles = signal<Profile[] | undefined>(undefined);
/** Why the account could not be read. */
export const accountError = signal<unknown>(undefined);
const chosen = signal<string | undefined>(undefined);

const PROFILE_KEY = "kino.profile";

/** Who watches: the profile chosen on this machine, or the only one. */
export const profile = computed(() => {
  const all = profiles.value ?? [];
  return all.length === 1 ? all[0] : all.find((one) => one.name === chosen.value);
});

export const isPublisher = computed(() => (session.value?.role ?? Role.UNSPECIFIED) >= Role.PUBLISHER);
export const isOperator = computed(() => session.value?.role === Role.OPERATOR);

export function chooseProfile(name: string | undefined): void {
  chosen.value = name;
  if (name) localStorage.setItem(PROFILE_KEY, name);
  else localStorage.removeItem(PROFILE_KEY);
}

export async function loadAccount(): Promise<void> {
  accountError.value = undefined;
  try {
    const [me, list] = await Promise.all([
      api.identity.getUser({ name: "users/me" }),
      api.identity.listProfiles({ parent: "users/me" }),
    ]);
    user.value = me.user;
    chosen.value ??= localStorage.getItem(PROFILE_KEY) ?? undefined;
    profiles.value = list.profiles;
  } catch (error) {
    if (session.value) accountError.value = error;
  }
}

/** Ends the session here and on the server. What fails there runs out by itself. */
export async function signOut(): Promise<void> {
  const refreshToken = keeper.current()?.refreshToken;
  keeper.forget();
  chooseProfile(undefined);
  if (refreshToken) await publicApi.identity.signOut({ refreshToken }).catch(() => undefined);
}

/** Follows the session: signing in or out, here or in another tab, changes who the page is for. */
export function followSession(): void {
  let known: string | undefined;
  effect(() => {
    const name = session.value?.user;
    if (name === known) return;
    known = name;
    user.value = undefined;
    profiles.value = undefined;
    accountError.value = undefined;
    if (name) void loadAccount();
  });
}

/** Id at the end of a resource name: `titles/x` → `x`. */
export const idOf = (name: string): string => name.slice(name.lastIndexOf("/") + 1);
