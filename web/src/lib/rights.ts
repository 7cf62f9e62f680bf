import { create } from "@bufbuild/protobuf";
import { timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import { RightsWindowSchema, type RightsWindow } from "kino-stubs/kino/catalog/v1/resources_pb.js";

/** A window as it is typed: countries by commas, times as `2026-05-03T20:15` on this machine's clock. */
export interface WindowForm {
  readonly regions: string;
  readonly start: string;
  readonly end: string;
}

const two = (n: number): string => String(n).padStart(2, "0");

const local = (date: Date): string =>
  `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}T${two(date.getHours())}:${two(date.getMinutes())}`;

export const formOf = (window: RightsWindow): WindowForm => ({
  regions: window.regionCodes.join(", "),
  start: window.startTime ? local(timestampDate(window.startTime)) : "",
  end: window.endTime ? local(timestampDate(window.endTime)) : "",
});

/** As the catalog takes them. */
export const windowsOf = (forms: readonly WindowForm[]): RightsWindow[] =>
  forms.map(({ regions, start, end }) =>
    create(RightsWindowSchema, {
      regionCodes: [...new Set(regions.toUpperCase().split(/[\s,]+/).filter(Boolean))],
      ...(start ? { startTime: timestampFromDate(new Date(start)) } : {}),
      ...(end ? { endTime: timestampFromDate(new Date(end)) } : {}),
    }),
  );
