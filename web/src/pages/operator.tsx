import { useState } from "preact/hooks";
import { Plan_Interval, type Invoice, type Plan } from "kino-stubs/kino/billing/v1/resources_pb.js";
import { Role, type User } from "kino-stubs/kino/identity/v1/resources_pb.js";
import { api } from "../api/clients";
import { useAct, useLoad, usePages } from "../lib/load";
import { once } from "../lib/request_id";
import { date, minorUnits } from "../lib/time";
import { idOf } from "../state";
import { announce, Dialog, ErrorNote, Field, Heading, Loading, Select } from "../ui/basics";
import { Invoices, planLimits, priceOf } from "./account";
import { Edges } from "./edges";
import { JobList } from "./jobs";
import { Workers } from "./workers";

const SECTIONS = [
  ["", "Plans"],
  ["users", "Users and payments"],
  ["jobs", "Jobs"],
  ["workers", "Workers"],
  ["edges", "Edges"],
] as const;

export function OperatorPage({ section, id }: { section: string; id: string }) {
  return (
    <div class="narrow wide">
      <Heading text="Operate" />
      <nav class="tabs" aria-label="Operate">
        {SECTIONS.map(([path, text]) => (
          <a key={path} href={`#/operator/${path}`} aria-current={section === path ? "page" : undefined}>
            {text}
          </a>
        ))}
      </nav>
      {section === "users" ? (
        id ? (
          <UserView key={id} id={id} />
        ) : (
          <Users />
        )
      ) : section === "jobs" ? (
        <JobList />
      ) : section === "workers" ? (
        <Workers />
      ) : section === "edges" ? (
        <Edges />
      ) : (
        <Plans />
      )}
    </div>
  );
}

function Plans() {
  const { value, error, reload } = useLoad(async (signal) => (await api.billing.listPlans({ pageSize: 200 }, { signal })).plans, []);
  const [making, setMaking] = useState(false);
  return (
    <section aria-labelledby="plans">
      <div class="section-head">
        <h2 id="plans">Plans</h2>
        <button type="button" class="button primary small" onClick={() => setMaking(true)}>
          New plan
        </button>
      </div>
      <ErrorNote error={error} retry={reload} />
      {value?.length === 0 && <p class="hint">Nobody can subscribe until there is a plan. A free plan entitles at once.</p>}
      <ul class="list">
        {value?.map((plan) => (
          <PlanLine key={plan.name} plan={plan} onChange={reload} />
        ))}
      </ul>
      {making && <NewPlan onClose={() => setMaking(false)} onDone={() => (setMaking(false), reload())} />}
    </section>
  );
}

function PlanLine({ plan, onChange }: { plan: Plan; onChange: () => void }) {
  const { busy, error, run } = useAct();
  const archive = () => void run(() => api.billing.archivePlan({ name: plan.name })).then((done) => done && onChange());
  return (
    <li>
      <div class="list-main">
        <strong dir="auto">{plan.displayName}</strong>
        <span class="dim">
          {priceOf(plan.price)} a {plan.interval === Plan_Interval.YEAR ? "year" : "month"} · {planLimits(plan).join(" · ")}
        </span>
        <ErrorNote error={error} />
      </div>
      <button type="button" class="button small" disabled={busy} aria-label={`Archive ${plan.displayName}`} onClick={archive}>
        Archive
      </button>
    </li>
  );
}

function NewPlan({ onClose, onDone }: { onClose: () => void; onDone: () => void }) {
  const [plan, setPlan] = useState({ name: "", price: "0", currency: "EUR", interval: "1", trial: "0", streams: "2" });
  const set = (field: keyof typeof plan) => (text: string) => setPlan({ ...plan, [field]: text });
  const { busy, error, run } = useAct();
  const submit = async (event: Event) => {
    event.preventDefault();
    const done = await run(async () => {
      const wanted = {
        displayName: plan.name.trim(),
        price: { currencyCode: plan.currency.toUpperCase(), amountMinor: minorUnits(plan.currency, plan.price) },
        interval: Number(plan.interval) as Plan_Interval,
        trialPeriodDays: Number(plan.trial),
        concurrentStreamLimit: Number(plan.streams),
      };
      return once(`plan:${JSON.stringify(plan)}`, (requestId) => api.billing.createPlan({ plan: wanted, requestId }));
    });
    if (!done) return;
    announce("Plan created");
    onDone();
  };
  return (
    <Dialog title="New plan" onClose={onClose}>
      <form onSubmit={(event) => void submit(event)}>
        <Field label="Name" required maxLength={100} value={plan.name} onText={set("name")} />
        <div class="two">
          <Field label="Price" inputMode="decimal" pattern="[0-9]+([.,][0-9]{1,3})?" hint="0 for a free plan" required value={plan.price} onText={set("price")} />
          <Field label="Currency" pattern="[A-Za-z]{3}" required value={plan.currency} onText={set("currency")} />
        </div>
        <div class="two">
          <Select label="Billed" value={plan.interval} options={[["1", "Monthly"], ["2", "Yearly"]]} onPick={set("interval")} />
          <Field label="Trial, in days" type="number" min={0} max={365} required value={plan.trial} onText={set("trial")} />
        </div>
        <Field label="Streams at the same time" type="number" min={1} max={100} required value={plan.streams} onText={set("streams")} />
        <p class="hint">Price and limits can't be changed afterwards; archive the plan and make another.</p>
        <ErrorNote error={error} />
        <button class="button primary" disabled={busy}>
          Create plan
        </button>
      </form>
    </Dialog>
  );
}

const ROLES = [
  [String(Role.VIEWER), "Viewer"],
  [String(Role.PUBLISHER), "Publisher"],
  [String(Role.OPERATOR), "Operator"],
] as const;

function Users() {
  const { value, error, reload, more } = usePages(async (pageToken, signal) => {
    const answer = await api.identity.listUsers({ pageToken, pageSize: 100 }, { signal });
    return { items: answer.users, nextPageToken: answer.nextPageToken };
  }, []);
  return (
    <section aria-labelledby="users">
      <h2 id="users">Users</h2>
      <ErrorNote error={error} retry={reload} />
      {!value && !error && <Loading what="users" />}
      <ul class="list">
        {value?.map((one) => (
          <UserLine key={one.name} user={one} />
        ))}
      </ul>
      {more && (
        <button type="button" class="button centered" onClick={more}>
          Show more
        </button>
      )}
    </section>
  );
}

function UserLine({ user }: { user: User }) {
  const [role, setRole] = useState(user.role);
  const { error, run } = useAct();
  const pick = (value: string) => {
    const wanted = Number(value) as Role;
    setRole(wanted);
    void run(() => api.identity.setUserRole({ name: user.name, role: wanted })).then((done) => {
      if (done) announce(`${user.displayName} has a new role from the next sign-in, or within fifteen minutes`);
      else setRole(user.role);
    });
  };
  return (
    <li>
      <div class="list-main">
        <strong dir="auto">{user.displayName}</strong>
        <span class="dim">
          {user.email} · since {date(user.createTime)}
        </span>
        <ErrorNote error={error} />
      </div>
      <Select label={`Role of ${user.displayName}`} hideLabel value={String(role)} options={ROLES} onPick={pick} />
      <a class="button small" href={`#/operator/users/${idOf(user.name)}`} aria-label={`Invoices of ${user.displayName}`}>
        Invoices
      </a>
    </li>
  );
}

function UserView({ id }: { id: string }) {
  const name = `users/${id}`;
  const { value, error, reload } = useLoad(async (signal) => (await api.identity.getUser({ name }, { signal })).user, [name]);
  const [paying, setPaying] = useState<Invoice | undefined>(undefined);
  const [paid, setPaid] = useState(0);
  return (
    <>
      <ErrorNote error={error} retry={reload} />
      <h2 dir="auto">{value ? `${value.displayName}, ${value.email}` : id}</h2>
      <Invoices parent={name} fresh={paid} onPay={setPaying} />
      {paying && <Payment invoice={paying} onClose={() => setPaying(undefined)} onDone={() => (setPaying(undefined), setPaid((n) => n + 1))} />}
    </>
  );
}

function Payment({ invoice, onClose, onDone }: { invoice: Invoice; onClose: () => void; onDone: () => void }) {
  const [reference, setReference] = useState("");
  const { busy, error, run } = useAct();
  const submit = async (event: Event) => {
    event.preventDefault();
    const request = { invoice: invoice.name, reference: reference.trim(), ...(invoice.total ? { amount: invoice.total } : {}) };
    const done = await run(() => once(`pay:${invoice.name}:${request.reference}`, (requestId) => api.billing.recordPayment({ ...request, requestId })));
    if (!done) return;
    announce(`${invoice.number} is paid`);
    onDone();
  };
  return (
    <Dialog title={`Payment of ${invoice.number}`} onClose={onClose}>
      <form onSubmit={(event) => void submit(event)}>
        <p>
          Received outside Kino: <strong>{priceOf(invoice.total)}</strong>
        </p>
        <Field label="Reference" hint="The bank's or the payer's. No card numbers." maxLength={200} value={reference} onText={setReference} />
        <ErrorNote error={error} />
        <button class="button primary" disabled={busy}>
          Record payment
        </button>
      </form>
    </Dialog>
  );
}
