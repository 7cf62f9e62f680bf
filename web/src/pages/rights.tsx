import { useState } from "preact/hooks";
import type { Title } from "kino-stubs/kino/catalog/v1/resources_pb.js";
import { api } from "../api/clients";
import { useAct } from "../lib/load";
import { formOf, windowsOf, type WindowForm } from "../lib/rights";
import { announce, Dialog, ErrorNote, Field } from "../ui/basics";

/** When and where a title may be watched. */
export function RightsDialog({ title, onClose, onDone }: { title: Title; onClose: () => void; onDone: () => void }) {
  const [windows, setWindows] = useState<WindowForm[]>(title.rights.map(formOf));
  const { busy, error, run } = useAct();
  const change = (at: number, field: keyof WindowForm) => (text: string) => setWindows(windows.map((one, i) => (i === at ? { ...one, [field]: text } : one)));
  const submit = async (event: Event) => {
    event.preventDefault();
    const saved = await run(() =>
      api.catalog.updateTitle({ title: { name: title.name, etag: title.etag, rights: windowsOf(windows) }, updateMask: { paths: ["rights"] } }),
    );
    if (!saved) return;
    announce("Saved");
    onDone();
  };
  return (
    <Dialog title="Where and when" onClose={onClose}>
      <form onSubmit={(event) => void submit(event)}>
        {windows.length === 0 && <p>This film may be watched everywhere and always.</p>}
        {windows.map((one, at) => (
          <fieldset key={at} class="window">
            <legend>Allowed {windows.length > 1 ? at + 1 : ""}</legend>
            <Field label="Countries" hint="Two letters each, separated by commas; empty: everywhere" pattern="[A-Za-z]{2}(\s*[,\s]\s*[A-Za-z]{2})*" value={one.regions} onText={change(at, "regions")} />
            <div class="two">
              <Field label="From" type="datetime-local" value={one.start} onText={change(at, "start")} />
              <Field label="Until" type="datetime-local" value={one.end} onText={change(at, "end")} />
            </div>
            <button type="button" class="button small" onClick={() => setWindows(windows.filter((_, i) => i !== at))}>
              Remove
            </button>
          </fieldset>
        ))}
        <button type="button" class="button" onClick={() => setWindows([...windows, { regions: "", start: "", end: "" }])}>
          {windows.length ? "Allow another time or place" : "Limit it"}
        </button>
        <ErrorNote error={error} />
        <button class="button primary" disabled={busy}>
          Save
        </button>
      </form>
    </Dialog>
  );
}
