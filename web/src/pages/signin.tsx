import { useState } from "preact/hooks";
import type { ComponentChildren } from "preact";
import type { Session } from "kino-stubs/kino/identity/v1/resources_pb.js";
import { keeper, publicApi } from "../api/clients";
import { useAct } from "../lib/load";
import { go, place } from "../lib/router";
import { once } from "../lib/request_id";
import { ErrorNote, Field, Heading } from "../ui/basics";
import { deviceName } from "../player/playback";

const MIN_PASSWORD = 10;

/** Signs in with what came back and goes on to where the person wanted to be. */
function enter(session: Session | undefined): void {
  if (!session) throw new Error("The server answered without a session");
  keeper.keep(session);
  if (["signin", "signup", "claim"].includes(place.value.path[0] ?? "")) go("/", { replace: true });
}

function AuthCard({ title, lead, children }: { title: string; lead: string; children: ComponentChildren }) {
  return (
    <section class="auth">
      <div class="auth-card">
        <Heading text={title} />
        <p class="lead">{lead}</p>
        {children}
      </div>
    </section>
  );
}

export function SignInPage() {
  const [email, setEmail] = useState("");
  const [password, setPassword] = useState("");
  const { busy, error, run } = useAct();
  const submit = (event: Event) => {
    event.preventDefault();
    void run(async () => enter((await publicApi.identity.signIn({ email: email.trim(), password, device: deviceName() })).session));
  };
  return (
    <AuthCard title="Sign in" lead="Your own films, from any moment.">
      <form onSubmit={submit}>
        <Field label="E-mail address" type="email" name="email" autocomplete="username" required value={email} onText={setEmail} />
        <Field label="Password" type="password" name="password" autocomplete="current-password" required value={password} onText={setPassword} />
        <ErrorNote error={error} />
        <button class="button primary wide" disabled={busy}>
          {busy ? "Signing in…" : "Sign in"}
        </button>
      </form>
      <p class="aside">
        New here? <a href="#/signup">Create an account</a>
      </p>
    </AuthCard>
  );
}

interface NewAccount {
  readonly email: string;
  readonly password: string;
  readonly displayName: string;
}

function AccountForm({ action, create }: { action: string; create: (account: NewAccount) => Promise<void> }) {
  const [displayName, setName] = useState("");
  const [email, setEmail] = useState("");
  const [password, setPassword] = useState("");
  const { busy, error, run } = useAct();
  const submit = (event: Event) => {
    event.preventDefault();
    void run(() => create({ email: email.trim(), password, displayName: displayName.trim() }));
  };
  return (
    <form onSubmit={submit}>
      <Field label="Name" name="name" autocomplete="name" required maxLength={100} value={displayName} onText={setName} />
      <Field label="E-mail address" type="email" name="email" autocomplete="username" required maxLength={254} value={email} onText={setEmail} />
      <Field
        label="Password"
        type="password"
        name="new-password"
        autocomplete="new-password"
        required
        minLength={MIN_PASSWORD}
        maxLength={1024}
        hint={`At least ${MIN_PASSWORD} characters; no other rule.`}
        value={password}
        onText={setPassword}
      />
      <ErrorNote error={error} />
      <button class="button primary wide" disabled={busy}>
        {busy ? "One moment…" : action}
      </button>
    </form>
  );
}

export function SignUpPage() {
  const create = async (account: NewAccount) => {
    const answer = await once(`signUp:${account.email}:${account.displayName}`, (requestId) =>
      publicApi.identity.signUp({ ...account, requestId, device: deviceName() }),
    );
    enter(answer.session);
  };
  return (
    <AuthCard title="Create an account" lead="One account, a profile for everybody who watches with it.">
      <AccountForm action="Create account" create={create} />
      <p class="aside">
        Already have one? <a href="#/signin">Sign in</a>
      </p>
    </AuthCard>
  );
}

export function ClaimPage({ token }: { token: string }) {
  const create = async (account: NewAccount) => enter((await publicApi.identity.claimOperator({ ...account, claimToken: token, device: deviceName() })).session);
  return (
    <AuthCard title="Become the operator" lead="This link works once: whoever uses it runs this deployment.">
      <AccountForm action="Become operator" create={create} />
    </AuthCard>
  );
}
