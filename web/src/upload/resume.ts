/** An upload that was begun from this machine. */
export interface BegunUpload {
  /** Format: `uploads/{upload}`. */
  readonly upload: string;
  /** Format: `titles/{title}`. */
  readonly title: string;
  readonly displayName: string;
  readonly partSizeBytes: number;
}

/** What tells one file of a machine from another without reading it. */
export type FileIdentity = Pick<File, "name" | "size" | "lastModified">;

type Store = Pick<Storage, "getItem" | "setItem" | "removeItem">;

/** Remembers which upload belongs to which file, so that a reload or a crash of the browser loses nothing. */
export class ResumeStore {
  constructor(private readonly store: Store) {}

  /** What was begun of a file: for the title that it replaces, or (empty) for a new one. */
  find(file: FileIdentity, replaces = ""): BegunUpload | undefined {
    const text = this.store.getItem(key(file, replaces));
    if (!text) return undefined;
    try {
      const begun = JSON.parse(text) as BegunUpload;
      return typeof begun.upload === "string" && begun.partSizeBytes > 0 ? begun : undefined;
    } catch {
      return undefined;
    }
  }

  remember(file: FileIdentity, begun: BegunUpload, replaces = ""): void {
    this.store.setItem(key(file, replaces), JSON.stringify(begun));
  }

  forget(file: FileIdentity, replaces = ""): void {
    this.store.removeItem(key(file, replaces));
  }
}

const key = (file: FileIdentity, replaces: string): string => `kino.upload.${replaces && `${replaces}.`}${file.size}.${file.lastModified}.${file.name}`;
