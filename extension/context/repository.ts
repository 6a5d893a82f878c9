/** Some lines of a file that a search of the repository found. */
export interface Passage {
  /** As the workspace names it. */
  path: string;
  /** From 1, end inclusive. */
  firstLine: number;
  lastLine: number;
  /** Of the whole file. */
  fileLines: number;
  text: string;
}

/** What is known of the workspace as a whole. */
export interface Repository {
  /** False: nothing can be found yet. */
  readonly ready: boolean;
  /** The most relevant first. */
  search(question: string, limit: number): Promise<Passage[]>;
  /** The main files with what they define, of about that many characters; '' where nothing is known. */
  map(maxChars: number): Promise<string>;
}
