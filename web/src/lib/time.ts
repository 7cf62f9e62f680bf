import { create } from "@bufbuild/protobuf";
import { DurationSchema, type Duration, type Timestamp } from "@bufbuild/protobuf/wkt";

/** Seconds of a media time on the source timeline; absent means zero. */
export const seconds = (duration: Duration | undefined): number =>
  duration ? Number(duration.seconds) + duration.nanos / 1e9 : 0;

/** A media time; a browser tells microseconds, which the services snap to the frame grid. */
export function duration(seconds: number): Duration {
  const micros = Math.round(Math.max(0, seconds) * 1e6);
  const whole = Math.floor(micros / 1e6);
  return create(DurationSchema, { seconds: BigInt(whole), nanos: (micros - whole * 1e6) * 1000 });
}

export const millis = (time: Timestamp | undefined): number =>
  time ? Number(time.seconds) * 1000 + Math.floor(time.nanos / 1e6) : 0;

/** `1:02:03` or `2:03`. */
export function clock(seconds: number): string {
  const whole = Math.max(0, Math.floor(Number.isFinite(seconds) ? seconds : 0));
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (n: number) => String(n).padStart(2, "0");
  return h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

/** Seconds of `1:02:03.5`, `2:03` or `75`. Throws on anything else. */
export function parseClock(text: string): number {
  if (!/^(\d+:){0,2}\d+(\.\d+)?$/.test(text.trim())) throw new RangeError(`${text} is not a time; write 1:15 or 0:01:15.5.`);
  return text.trim().split(":").reduce((sum, part) => sum * 60 + Number(part), 0);
}

/** `1 hour 2 minutes 3 seconds`, for screen readers. */
export function spoken(seconds: number): string {
  const whole = Math.max(0, Math.floor(Number.isFinite(seconds) ? seconds : 0));
  const parts: [number, string][] = [
    [Math.floor(whole / 3600), "hour"],
    [Math.floor(whole / 60) % 60, "minute"],
    [whole % 60, "second"],
  ];
  const said = parts.filter(([n]) => n).map(([n, unit]) => `${n} ${unit}${n === 1 ? "" : "s"}`);
  return said.join(" ") || "0 seconds";
}

/** `1 h 32 min`, `45 s`: how long a film is. */
export function length(seconds: number): string {
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

const day = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });
const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

export const date = (time: Timestamp | undefined): string => (time ? day.format(millis(time)) : "–");
export const dateTime = (time: Timestamp | undefined): string => (time ? moment.format(millis(time)) : "–");

/** `12.3 MB`, in powers of ten like file managers show. */
export function bytes(count: number): string {
  if (count < 1000) return `${Math.round(count)} B`;
  const exponent = Math.min(4, Math.floor(Math.log10(count) / 3));
  const value = count / 1000 ** exponent;
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ${["kB", "MB", "GB", "TB"][exponent - 1]}`;
}

const moneyFormat = (currency: string) => new Intl.NumberFormat(undefined, { style: "currency", currency });

/** Digits after the point by ISO 4217, as the browser knows them. */
const minorDigits = (currency: string): number => moneyFormat(currency).resolvedOptions().maximumFractionDigits ?? 2;

/** Money in the viewer's language. */
export const money = (currency: string, minor: bigint): string =>
  moneyFormat(currency).format(Number(minor) / 10 ** minorDigits(currency));

/** A typed amount, `4.99` or `4,99`, in minor units, counted in whole numbers. Throws on anything else. */
export function minorUnits(currency: string, text: string): bigint {
  const digits = minorDigits(currency.toUpperCase());
  const match = /^(\d+)(?:[.,](\d+))?$/.exec(text.trim());
  if (!match || (match[2]?.length ?? 0) > digits) throw new RangeError(`${text} is not an amount of ${currency}`);
  return BigInt(match[1] + (match[2] ?? "").padEnd(digits, "0"));
}
