import { create } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { Role, SessionSchema, type Session } from "kino-stubs/kino/identity/v1/resources_pb.js";
import { describe, expect, it } from "vitest";
import { SessionKeeper, lifetimeMs, type Exclusive } from "../src/api/session";
import { once } from "../src/lib/request_id";
import { MemoryStorage } from "./memory_storage";

const token = (name: string, iat = 1000, exp = 1900): string => `h.${btoa(JSON.stringify({ sub: name, iat, exp }))}.s`;

const session = (name: string): Session =>
  create(SessionSchema, { user: "users/u", accessToken: token(name), refreshToken: `refresh-${name}`, role: Role.VIEWER });

/** One lock for all tabs of a test. */
function lock(): Exclusive {
  let last: Promise<unknown> = Promise.resolve();
  return (run) => {
    const next = last.then(run);
    last = next.catch(() => undefined);
    return next;
  };
}

describe("SessionKeeper", () => {
  it("hands out the token while it is fresh and replaces it before its end, by its own length of life", async () => {
    let nowMs = 5_000_000;
    const used: string[] = [];
    const keeper = new SessionKeeper(new MemoryStorage(), lock(), async (refresh) => (used.push(refresh), session("b")), () => nowMs);
    keeper.keep(session("a"));
    nowMs += 700_000;
    expect(await keeper.accessToken()).toBe(token("a"));
    nowMs += 30_000;
    expect(await keeper.accessToken()).toBe(token("b"));
    expect(used).toEqual(["refresh-a"]);
  });

  it("refreshes once for all calls of all tabs", async () => {
    const [storage, exclusive, used] = [new MemoryStorage(), lock(), [] as string[]];
    const tab = () => new SessionKeeper(storage, exclusive, async (refresh) => (used.push(refresh), session("b")), () => 0);
    const [one, two] = [tab(), tab()];
    one.keep(session("a"));
    const stale = token("a");
    expect(await Promise.all([one.replace(stale), two.replace(stale), one.replace(stale)])).toEqual([token("b"), token("b"), token("b")]);
    expect(used).toEqual(["refresh-a"]);
  });

  it("forgets a session the server has ended", async () => {
    let changes = 0;
    const keeper = new SessionKeeper(new MemoryStorage(), lock(), async () => undefined, () => 0, () => changes++);
    keeper.keep(session("a"));
    expect(await keeper.replace(token("a"))).toBeUndefined();
    expect([keeper.current(), changes]).toEqual([undefined, 2]);
  });

  it("keeps the session when the server can't be reached", async () => {
    const keeper = new SessionKeeper(
      new MemoryStorage(),
      lock(),
      async () => {
        throw new ConnectError("down", Code.Unavailable);
      },
      () => 0,
    );
    keeper.keep(session("a"));
    await expect(keeper.replace(token("a"))).rejects.toMatchObject({ code: Code.Unavailable });
    expect(keeper.current()?.refreshToken).toBe("refresh-a");
  });

  it("takes a token it can't read for a short-lived one", () => {
    expect([lifetimeMs("nonsense"), lifetimeMs(token("a", 5, 5)), lifetimeMs(token("a"))]).toEqual([60_000, 60_000, 900_000]);
  });
});

describe("once", () => {
  const ids: string[] = [];
  const call = (outcome: ConnectError | string) => async (id: string) => {
    ids.push(id);
    if (outcome instanceof ConnectError) throw outcome;
    return outcome;
  };

  it("keeps the request id until there is an answer", async () => {
    const store = new MemoryStorage();
    await expect(once("s", call(new ConnectError("?", Code.Unavailable)), store)).rejects.toBeDefined();
    await expect(once("s", call(new ConnectError("?", Code.Unknown)), store)).rejects.toBeDefined();
    expect(await once("s", call("done"), store)).toBe("done");
    await once("s", call("another"), store);
    expect(ids.slice(0, 3)).toEqual([ids[0], ids[0], ids[0]]);
    expect(ids[3]).not.toBe(ids[0]);
    expect(store.length).toBe(0);
  });

  it("takes a refusal for an answer", async () => {
    const store = new MemoryStorage();
    await expect(once("s", call(new ConnectError("no", Code.InvalidArgument)), store)).rejects.toBeDefined();
    expect(store.length).toBe(0);
  });
});
