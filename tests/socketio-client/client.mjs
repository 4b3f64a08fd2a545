// Joins a namespace with the reference client and tells, line by line, what it hears. What it reads, it does:
// `emit EVENT JSON`, `close`.
import { createInterface } from "node:readline";
import { io } from "socket.io-client";

const [address, token, transports] = process.argv.slice(2);
const tell = (what, detail = null) => console.log(JSON.stringify({ what, detail }));

const socket = io(address, {
  transports: transports.split(","),
  auth: { token },
  reconnectionDelay: 50,
  reconnectionDelayMax: 200,
  randomizationFactor: 0,
});
socket.io.on("open", () => {
  const { engine } = socket.io;
  tell("open", engine.transport.name);
  engine.on("upgrade", (transport) => tell("upgrade", transport.name));
});
socket.on("connect", () => tell("connect"));
socket.onAny((event, message) => tell(event, message));
socket.on("connect_error", (error) => tell("connect_error", error.message));
socket.on("disconnect", (reason) => tell("disconnect", reason));

for await (const line of createInterface({ input: process.stdin })) {
  const [verb, event, ...json] = line.split(" ");
  if (verb === "close") break;
  socket.emit(event, JSON.parse(json.join(" ")));
}
// By polling, the goodbye is on its way until the engine has closed.
socket.io.engine.on("close", () => process.exit(0));
socket.disconnect();
if (socket.io.engine.readyState === "closed") process.exit(0);
