import { render } from "preact";
import "./lib/theme";
import "./styles/base.css";
import "./styles/parts.css";
import "./styles/player.css";
import { App } from "./app";
import { sendUnsentReports } from "./player/playback";
import { followWatchlist } from "./lib/watchlist";
import { followSession } from "./state";

followSession();
followWatchlist();
void sendUnsentReports();
render(<App />, document.getElementById("app")!);
