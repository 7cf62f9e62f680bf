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

  find(file: FileIdentity): BegunUpload | undefined {
    const text = this.store.getItem(key(file));
    if (!text) return undefined;
    try {
      const begun = JSON.parse(text) as BegunUpload;
      return typeof begun.upload === "string" && begun.partSizeBytes > 0 ? begun : undefined;
    } catch {
      return undefined;
    }
  }

  remember(file: FileIdentity, begun: BegunUpload): void {
    this.store.setItem(key(file), JSON.stringify(begun));
  }

  forget(file: FileIdentity): void {
    this.store.removeItem(key(file));
  }
}

const key = (file: FileIdentity): string => `kino.upload.${file.size}.${file.lastModified}.${file.name}`;
