import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { session } from "./api/clients";
import { go, place } from "./lib/router";
import { AccountPage } from "./pages/account";
import { HomePage } from "./pages/home";
import { JobPage, JobsPage } from "./pages/jobs";
import { OperatorPage } from "./pages/operator";
import { ProfilesPage } from "./pages/profiles";
import { SearchPage } from "./pages/search";
import { SeriesPage } from "./pages/series";
import { ClaimPage, SignInPage, SignUpPage } from "./pages/signin";
import { TitlePage } from "./pages/title";
import { UploadPage } from "./pages/upload";
import { accountError, isOperator, isPublisher, loadAccount, profile, profiles } from "./state";
import { ErrorNote, Heading, LiveRegion, Loading } from "./ui/basics";
import { Header } from "./ui/header";

export function App() {
  const main = useRef<HTMLElement>(null);
  const path = place.value.path.join("/");
  useEffect(() => {
    // A new place starts at its top, for the eye and for the keyboard.
    scrollTo(0, 0);
    if (path !== "search") (document.activeElement as HTMLElement | null)?.blur();
  }, [path]);
  const toMain = (event: Event) => {
    event.preventDefault();
    main.current?.focus();
  };
  return (
    <>
      <a class="skip" href="#/" onClick={toMain}>
        Skip to content
      </a>
      <Header />
      <main ref={main} tabIndex={-1}>
        <Page />
      </main>
      <LiveRegion />
    </>
  );
}

/** The page of the place in the address; what needs a session or a profile asks for it first. */
function Page() {
  const { path, query } = place.value;
  const [first = "", second = "", third = ""] = path;
  if (first === "claim") return <ClaimPage token={second} />;
  if (!session.value) return first === "signup" ? <SignUpPage /> : <SignInPage />;
  if (accountError.value) return <ErrorNote error={accountError.value} retry={() => void loadAccount()} />;
  if (!profiles.value) return <Loading what="your account" />;
  if (first === "account") return <AccountPage />;
  if (!profile.value || first === "profiles") return <ProfilesPage />;
  switch (first) {
    case "":
      return <HomePage />;
    case "signin":
    case "signup":
      return <Gone to="/" />;
    case "search":
      return <SearchPage query={query.get("q") ?? ""} />;
    case "titles":
      return <TitlePage key={second} id={second} play={query.has("play")} />;
    case "series":
      return <SeriesPage key={second} id={second} />;
    case "upload":
      return <Only when={isPublisher.value}><UploadPage /></Only>;
    case "jobs":
      return <Only when={isPublisher.value}>{second ? <JobPage key={second} id={second} /> : <JobsPage />}</Only>;
    case "operator":
      return <Only when={isOperator.value}><OperatorPage section={second} id={third} /></Only>;
    default:
      return <NotFound />;
  }
}

function Gone({ to }: { to: string }) {
  useEffect(() => go(to, { replace: true }), [to]);
  return null;
}

const Only = ({ when, children }: { when: boolean; children: ComponentChildren }) =>
  when ? <>{children}</> : <ErrorNote error="Your account may not do this. Ask the operator for another role." />;

const NotFound = () => (
  <section class="narrow">
    <Heading text="Nothing is here" />
    <p>
      The address is wrong or old. <a href="#/">Go to the start</a>.
    </p>
  </section>
);
