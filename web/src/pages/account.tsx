import { useState } from "preact/hooks";
import { Invoice_State, Plan_Interval, Subscription_State, type Invoice, type Plan, type Subscription } from "kino-stubs/kino/billing/v1/resources_pb.js";
import type { Device } from "kino-stubs/kino/identity/v1/resources_pb.js";
import type { Money } from "kino-stubs/kino/common/v1/money_pb.js";
import { api, keeper, session } from "../api/clients";
import { sentenceOfReason } from "../api/errors";
import { useAct, useLoad, usePages } from "../lib/load";
import { once } from "../lib/request_id";
import { date, dateTime, money } from "../lib/time";
import { Devices } from "../player/devices";
import { user } from "../state";
import { announce, Badge, Dialog, ErrorNote, Field, Heading, Loading } from "../ui/basics";

export const priceOf = (amount: Money | undefined): string => (amount && amount.currencyCode ? money(amount.currencyCode, amount.amountMinor) : "–");

/** What a plan gives, in words. */
export const planLimits = (plan: Plan): string[] => [
  plan.concurrentStreamLimit === 1 ? "one stream at a time" : `${plan.concurrentStreamLimit} streams at the same time`,
  ...(plan.trialPeriodDays ? [`${plan.trialPeriodDays} days free to try`] : []),
];

const period = (plan: Plan): string => (plan.interval === Plan_Interval.YEAR ? "year" : "month");

export function AccountPage() {
  const parent = session.value?.user ?? "";
  const billing = useLoad((signal) => loadBilling(parent, signal), [parent]);
  return (
    <div class="narrow">
      <Heading text="Account" />
      <p class="dim">
        {user.value?.displayName} · {user.value?.email}
      </p>
      <ErrorNote error={billing.error} retry={billing.reload} />
      {!billing.value && !billing.error && <Loading what="your plan" />}
      {billing.value && <PlanSection billing={billing.value} parent={parent} onChange={billing.reload} />}
      <Invoices parent={parent} fresh={billing.value} />
      <SignedIn parent={parent} />
      <section aria-labelledby="watching">
        <h2 id="watching">Watching now</h2>
        <Devices />
      </section>
      <Password />
    </div>
  );
}

interface Billing {
  readonly plans: Plan[];
  readonly subscriptions: Subscription[];
  readonly entitled: boolean;
  readonly reason: string;
}

async function loadBilling(user: string, signal: AbortSignal): Promise<Billing> {
  const [{ plans }, { subscriptions }, { entitlement }] = await Promise.all([
    api.billing.listPlans({ pageSize: 200 }, { signal }),
    api.billing.listSubscriptions({ parent: user }, { signal }),
    api.billing.checkEntitlement({ user }, { signal }),
  ]);
  return { plans, subscriptions, entitled: entitlement?.entitled ?? false, reason: entitlement?.reason ?? "" };
}

function PlanSection({ billing, parent, onChange }: { billing: Billing; parent: string; onChange: () => void }) {
  const live = billing.subscriptions.find((one) => one.state !== Subscription_State.CANCELED);
  return (
    <section aria-labelledby="plan">
      <h2 id="plan">Plan</h2>
      <p>
        {billing.entitled ? <Badge tone="good">You can watch</Badge> : <Badge tone="bad">{billing.reason ? sentenceOfReason(billing.reason) : "You can't watch yet"}</Badge>}
      </p>
      {live ? (
        <CurrentPlan subscription={live} plan={billing.plans.find((plan) => plan.name === live.plan)} onChange={onChange} />
      ) : (
        <PlanList plans={billing.plans} parent={parent} onChange={onChange} />
      )}
    </section>
  );
}

function PlanList({ plans, parent, onChange }: { plans: Plan[]; parent: string; onChange: () => void }) {
  const { busy, error, run } = useAct();
  if (!plans.length) return <p class="hint">There are no plans yet. The operator can make one.</p>;
  const subscribe = (plan: Plan) => async () => {
    // The request id is kept until this is answered: pressing twice, or again after an error, subscribes once.
    const done = await run(() => once(`subscribe:${parent}:${plan.name}`, (requestId) => api.billing.createSubscription({ parent, plan: plan.name, requestId })));
    if (done) announce(`Subscribed to ${plan.displayName}`);
    onChange();
  };
  return (
    <>
      <ErrorNote error={error} />
      <ul class="plans">
        {plans.map((plan) => (
          <li key={plan.name} class="plan">
            <h3 dir="auto">{plan.displayName}</h3>
            <p class="price">
              {plan.price?.amountMinor ? priceOf(plan.price) : "Free"} {plan.price?.amountMinor ? <span class="dim">a {period(plan)}</span> : null}
            </p>
            <ul class="plain-list">
              {planLimits(plan).map((text) => (
                <li key={text}>{text}</li>
              ))}
            </ul>
            <button type="button" class="button primary" disabled={busy} aria-label={`Subscribe to ${plan.displayName}`} onClick={() => void subscribe(plan)()}>
              Subscribe
            </button>
          </li>
        ))}
      </ul>
    </>
  );
}

const SUBSCRIPTION_STATES: Readonly<Record<Subscription_State, readonly ["good" | "busy" | "bad" | "plain", string]>> = {
  [Subscription_State.UNSPECIFIED]: ["plain", "Unknown"],
  [Subscription_State.TRIALING]: ["good", "Free trial"],
  [Subscription_State.INCOMPLETE]: ["busy", "Waits for the first payment"],
  [Subscription_State.ACTIVE]: ["good", "Active"],
  [Subscription_State.PAST_DUE]: ["bad", "Payment overdue"],
  [Subscription_State.CANCELED]: ["plain", "Ended"],
};

function CurrentPlan({ subscription, plan, onChange }: { subscription: Subscription; plan: Plan | undefined; onChange: () => void }) {
  const [asking, setAsking] = useState(false);
  const [tone, text] = SUBSCRIPTION_STATES[subscription.state];
  const ending = subscription.cancelTime !== undefined;
  return (
    <div class="panel">
      <div class="job-head">
        <h3 dir="auto">{plan?.displayName ?? "Your plan"}</h3>
        <Badge tone={tone}>{text}</Badge>
      </div>
      <p class="dim">
        {plan && `${priceOf(plan.price)} a ${period(plan)} · `}
        {ending ? `ends on ${date(subscription.cancelTime)}` : `this period ends on ${date(subscription.currentPeriodEndTime)}`}
      </p>
      {!ending && (
        <button type="button" class="button" onClick={() => setAsking(true)}>
          Cancel subscription
        </button>
      )}
      {asking && <CancelSubscription subscription={subscription} onClose={() => setAsking(false)} onDone={() => (setAsking(false), onChange())} />}
    </div>
  );
}

function CancelSubscription({ subscription, onClose, onDone }: { subscription: Subscription; onClose: () => void; onDone: () => void }) {
  const { busy, error, run } = useAct();
  const cancel = () => void run(() => api.billing.cancelSubscription({ name: subscription.name })).then((done) => done && onDone());
  return (
    <Dialog title="Cancel the subscription?" onClose={onClose}>
      <p>You can watch until the end of what is paid or tried. An invoice that is not paid yet is withdrawn.</p>
      <ErrorNote error={error} />
      <button type="button" class="button danger" disabled={busy} onClick={cancel}>
        Cancel subscription
      </button>
    </Dialog>
  );
}

const INVOICE_STATES: Readonly<Record<Invoice_State, readonly ["good" | "busy" | "bad" | "plain", string]>> = {
  [Invoice_State.UNSPECIFIED]: ["plain", "Unknown"],
  [Invoice_State.OPEN]: ["busy", "To be paid"],
  [Invoice_State.PAID]: ["good", "Paid"],
  [Invoice_State.VOID]: ["plain", "Withdrawn"],
};

interface InvoicesProps {
  readonly parent: string;
  /** Changes when the invoices may have. */
  readonly fresh?: unknown;
  /** What can be done with an open invoice. */
  readonly onPay?: (invoice: Invoice) => void;
}

/** The invoices of a user, newest first. */
export function Invoices({ parent, fresh, onPay }: InvoicesProps) {
  const { value, error, reload, more } = usePages(
    async (pageToken, signal) => {
      const answer = await api.billing.listInvoices({ parent, pageToken }, { signal });
      return { items: answer.invoices, nextPageToken: answer.nextPageToken };
    },
    [parent],
    [fresh],
  );
  return (
    <section aria-labelledby="invoices">
      <h2 id="invoices">Invoices</h2>
      <ErrorNote error={error} retry={reload} />
      {value?.length === 0 && <p class="hint">No invoices.</p>}
      {value && value.length > 0 && (
        <div class="table-box" tabIndex={0} role="region" aria-labelledby="invoices">
          <table>
            <thead>
              <tr>
                <th scope="col">Number</th>
                <th scope="col">For</th>
                <th scope="col">Due</th>
                <th scope="col" class="number">
                  Total
                </th>
                <th scope="col">State</th>
                {onPay && <th scope="col">Payment</th>}
              </tr>
            </thead>
            <tbody>
              {value.map((invoice) => (
                <InvoiceRow key={invoice.name} invoice={invoice} onPay={onPay} />
              ))}
            </tbody>
          </table>
        </div>
      )}
      {more && (
        <button type="button" class="button centered" onClick={more}>
          Show more
        </button>
      )}
    </section>
  );
}

function InvoiceRow({ invoice, onPay }: { invoice: Invoice; onPay: ((invoice: Invoice) => void) | undefined }) {
  const [tone, text] = INVOICE_STATES[invoice.state];
  return (
    <tr>
      <th scope="row">{invoice.number}</th>
      <td dir="auto">{invoice.lines.map((line) => line.description).join(", ")}</td>
      <td>{date(invoice.dueTime)}</td>
      <td class="number">{priceOf(invoice.total)}</td>
      <td>
        <Badge tone={tone}>{text}</Badge>
      </td>
      {onPay && (
        <td>
          {invoice.state === Invoice_State.OPEN && (
            <button type="button" class="button small" aria-label={`Record the payment of ${invoice.number}`} onClick={() => onPay(invoice)}>
              Record
            </button>
          )}
        </td>
      )}
    </tr>
  );
}

/** Where the account is signed in, and signing out from afar. */
function SignedIn({ parent }: { parent: string }) {
  const { value, error, reload } = useLoad(async (signal) => (await api.identity.listDevices({ parent }, { signal })).devices, [parent]);
  return (
    <section aria-labelledby="devices">
      <h2 id="devices">Devices</h2>
      <ErrorNote error={error} retry={reload} />
      {!value && !error && <Loading what="the devices" />}
      <ul class="list">
        {value?.map((device) => (
          <DeviceLine key={device.name} device={device} onChange={reload} />
        ))}
      </ul>
    </section>
  );
}

function DeviceLine({ device, onChange }: { device: Device; onChange: () => void }) {
  const { busy, error, run } = useAct();
  const called = device.displayName || "Unnamed device";
  const end = () =>
    void run(() => api.identity.deleteDevice({ name: device.name })).then((done) => {
      if (!done) return;
      announce(`${called} is signed out, within fifteen minutes`);
      onChange();
    });
  return (
    <li>
      <div class="list-main">
        <strong>{called}</strong>
        <span class="dim">
          last used {dateTime(device.lastUseTime)} · signed in {date(device.createTime)}
        </span>
        <ErrorNote error={error} />
      </div>
      {device.current ? (
        <Badge tone="good">This device</Badge>
      ) : (
        <button type="button" class="button small" disabled={busy} aria-label={`Sign out ${called}`} onClick={end}>
          Sign out
        </button>
      )}
    </li>
  );
}

function Password() {
  const [oldPassword, setOld] = useState("");
  const [newPassword, setNew] = useState("");
  const [done, setDone] = useState(false);
  const { busy, error, run } = useAct();
  const submit = async (event: Event) => {
    event.preventDefault();
    const name = session.value?.user ?? "";
    const changed = await run(async () => {
      const answer = await api.identity.changePassword({ name, oldPassword, newPassword });
      if (answer.session) keeper.keep(answer.session);
    });
    setDone(changed);
    if (changed) (setOld(""), setNew(""));
  };
  return (
    <section aria-labelledby="password">
      <h2 id="password">Password</h2>
      <form class="panel" onSubmit={(event) => void submit(event)}>
        {/* Tells password managers whose password this is. */}
        <input hidden type="text" autocomplete="username" value={user.value?.email} readOnly />
        <div class="two">
          <Field label="Password now" type="password" autocomplete="current-password" required value={oldPassword} onText={setOld} />
          <Field label="New password" type="password" autocomplete="new-password" required minLength={10} maxLength={1024} value={newPassword} onText={setNew} />
        </div>
        <ErrorNote error={error} />
        <p role="status">{done && "Changed. All other devices were signed out."}</p>
        <button class="button" disabled={busy}>
          Change password
        </button>
      </form>
    </section>
  );
}
