import { Code, ConnectError } from "@connectrpc/connect";
import { BadRequestSchema, ErrorInfoSchema } from "kino-stubs/google/rpc/error_details_pb.js";
import type { Status } from "kino-stubs/google/rpc/status_pb.js";
import { anyUnpack, timestampFromDate } from "@bufbuild/protobuf/wkt";
import { bytes, dateTime } from "../lib/time";

type Metadata = Readonly<Record<string, string>>;
type Sentence = string | ((metadata: Metadata) => string);

const size = (text: string | undefined): string => bytes(Number(text ?? 0));

/** What each `ErrorInfo.reason` means to a person, and what to do next. Reasons left out speak for themselves. */
const SENTENCES: Readonly<Record<string, Sentence>> = {
  UNAUTHENTICATED: "Please sign in first.",
  PERMISSION_DENIED: "Your account may not do this.",
  WRONG_CREDENTIALS: "The address or the password is wrong.",
  TOO_MANY_ATTEMPTS: "Too many failed tries. Wait a quarter of an hour, then try again.",
  EMAIL_TAKEN: "There is already an account with this address. Sign in instead.",
  SESSION_ENDED: "Your session has ended. Sign in again.",
  REFRESH_TOKEN_REUSED: "Your session has ended. Sign in again.",
  PROFILE_LIMIT: "An account can have ten profiles; delete one first.",
  CLAIM_INVALID: "This link was used already or is not valid. The operator sign-up works only once.",
  LAST_OPERATOR: "This is the last operator; make somebody else operator first.",
  LAST_PROFILE: "An account needs at least one profile.",
  NOT_ENTITLED: (m) => say(m["cause"] ?? "", {}) ?? "A running subscription is needed to watch.",
  NO_SUBSCRIPTION: "A subscription is needed to watch.",
  INVOICE_UNPAID: "Your first invoice is not paid yet. Watching starts once it is.",
  ALREADY_SUBSCRIBED: "You already have a subscription. Cancel it before you take another.",
  PLAN_ARCHIVED: "This plan can't be subscribed to any more.",
  INVOICE_NOT_OPEN: "This invoice is not open: it was paid or withdrawn.",
  AMOUNT_MISMATCH: "The amount must be exactly the invoice's total.",
  REQUEST_ID_REUSED: "This was sent before with other values. Reload the page and try again.",
  CONCURRENT_STREAM_LIMIT: "All streams of your plan are in use. Stop one of them, then try again.",
  SUBSCRIPTION_ENDED: "Your subscription has ended. Take a plan to go on watching.",
  LEASE_LOST: "This device was silent for too long, so its stream was given back.",
  LEASE_ENDED: "This playback was ended.",
  OFFSET_OUT_OF_RANGE: "That moment lies after the end of the film.",
  TITLE_NOT_FOUND: "This film doesn't exist, or isn't shown any more.",
  TITLE_REPLACED: "This film was replaced by a newer version. Start it again.",
  TITLE_NOT_PLAYABLE: "Nothing of this film can be played yet.",
  TITLE_OUTSIDE_REGION: "This film may not be watched where you are.",
  TITLE_NOT_YET_AVAILABLE: (m) => (m["start_time"] ? `This film may be watched from ${dateTime(timestampFromDate(new Date(m["start_time"])))} on.` : "This film may not be watched yet."),
  TITLE_NO_LONGER_AVAILABLE: "This film may not be watched any more.",
  PICTURE_UNREADABLE: "This file is no picture that can be read. Send a JPEG, PNG or WebP.",
  FRAME_NOT_READY: "That moment is not encoded yet. Choose another, or wait.",
  SERIES_NOT_FOUND: "This series doesn't exist, or isn't shown any more.",
  SEASON_NUMBER_TAKEN: "The series has a season with this number already.",
  ALREADY_EPISODE: "This film is an episode already.",
  WATCHLIST_FULL: "Your list is full. Take something off it first.",
  SEGMENT_CORRUPT: "A stored part of the film is damaged. The operator can process it again.",
  SEGMENT_MISSING: "A stored part of the film is gone. The operator can process it again.",
  ETAG_MISMATCH: "Somebody else changed this meanwhile. Close, look again, and repeat your change.",
  JOB_NOT_FOUND: "This job doesn't exist, or isn't yours.",
  TITLE_HAS_SOURCE: "This title already has a film. Replace it there, or make a new title for another one.",
  UPLOAD_TOO_LARGE: (m) => (m["limit_bytes"] ? `The file is larger than the ${size(m["limit_bytes"])} allowed.` : "The file is too large."),
  UPLOAD_QUOTA_EXCEEDED: "Your space for uploads is used up. Finish or cancel another upload first.",
  UPLOAD_CHECKSUM_MISMATCH: "The file changed on the way or on disk while it was sent. Send it again.",
  UPLOAD_PART_DIFFERS: "The file is not the one that was begun. Cancel this upload and start anew.",
  UPLOAD_OFFSET_MISMATCH: "The server expects another part of the file. Resume the upload.",
  UPLOAD_NOT_RECEIVING: "This upload takes no more parts: it is complete, cancelled or expired.",
  SOURCE_EMPTY: "The file is empty.",
  SOURCE_NOT_MEDIA: "This file is not a film.",
  SOURCE_TRUNCATED: "The file is cut off; export or copy it again.",
  SOURCE_HAS_NO_VIDEO: "The file has no pictures, only sound.",
  SOURCE_IS_PLAYLIST: "This is a playlist, not a film: it only points to other files.",
  SOURCE_UNSUPPORTED: "The film's format is not supported.",
  ENCODER_STALLED: "The encoder made no progress and was stopped.",
  OUTCOME_UNKNOWN: "It is not known whether this was stored. Try again: nothing happens twice.",
  RESOURCE_EXHAUSTED: "A limit is used up. Try again later.",
};

const BY_CODE: Readonly<Partial<Record<Code, string>>> = {
  [Code.Unavailable]: "The server can't be reached at the moment. Try again shortly.",
  [Code.DeadlineExceeded]: "The server took too long to answer. Try again.",
  [Code.Unauthenticated]: "Please sign in first.",
  [Code.PermissionDenied]: "Your account may not do this.",
  [Code.Unimplemented]: "The server doesn't know this yet; it may be older than the page.",
};

/** `ErrorInfo.reason` of what a call failed with; empty when it carried none. */
export const reasonOf = (error: unknown): string => infoOf(error)?.reason ?? "";

const infoOf = (error: unknown) => ConnectError.from(error).findDetails(ErrorInfoSchema)[0];

/** An error in one sentence for a person. */
export function sentenceOf(error: unknown): string {
  const connect = ConnectError.from(error);
  const info = infoOf(connect);
  const known = info && say(info.reason, info.metadata);
  if (known) return known;
  const violation = connect.findDetails(BadRequestSchema)[0]?.fieldViolations[0];
  if (violation) return `${violation.field ? `${violation.field}: ` : ""}${violation.description}`;
  // Without Kino's details the text is the gateway's or the browser's and says nothing to a person.
  return (!info && BY_CODE[connect.code]) || finish(connect.rawMessage) || "Something went wrong.";
}

/** The sentence of a stored `google.rpc.Status`, such as a failed job's. */
export function sentenceOfStatus(status: Status): string {
  for (const any of status.details) {
    const info = anyUnpack(any, ErrorInfoSchema);
    const known = info && say(info.reason, info.metadata);
    if (known) return known;
  }
  return finish(status.message) || "Something went wrong.";
}

/** The sentence of a bare reason, such as an entitlement's. */
export const sentenceOfReason = (reason: string): string => say(reason, {}) ?? reason;

function say(reason: string, metadata: Metadata): string | undefined {
  const sentence = SENTENCES[reason];
  return typeof sentence === "function" ? sentence(metadata) : sentence;
}

const finish = (text: string): string => (text && !/[.!?…]$/.test(text) ? `${text}.` : text);

export const isCode = (error: unknown, ...codes: Code[]): boolean => codes.includes(ConnectError.from(error).code);

/** True when nobody is to blame: the caller left before the answer. */
export const isAbort = (error: unknown): boolean => isCode(error, Code.Canceled);
