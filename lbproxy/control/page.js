"use strict"
// Asks for the page again when something happens, and every two seconds for the numbers, and replaces the parts that
// differ. It draws nothing itself: see page.py.

const EVERY_MS = 2000
const SOON_MS = 250
const live = document.getElementById("live")
let asking = false
let planned = 0
let due = 0

function say(kind, text) {
  live.className = kind
  live.textContent = text
}

// Refresh in so many milliseconds, or earlier if that is planned: a stream of events must not put it off.
function plan(ms) {
  const at = performance.now() + ms
  if (planned && due <= at) return
  clearTimeout(planned)
  due = at
  planned = setTimeout(refresh, ms)
}

async function refresh() {
  planned = 0
  if (asking || document.hidden) return plan(EVERY_MS)
  asking = true
  try {
    const answer = await fetch(`${location.origin}/`, { cache: "no-store", signal: AbortSignal.timeout(10000) })
    if (!answer.ok) throw new Error(`lbproxy answers ${answer.status}`)
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html")
    for (const part of document.querySelectorAll("section")) {
      const next = fresh.getElementById(part.id)
      if (next && next.outerHTML !== part.outerHTML) part.replaceWith(document.importNode(next, true))
    }
    say("good", "● live")
  } catch (error) {
    say("bad", `▲ not live: ${error.message}`)
  }
  asking = false
  plan(EVERY_MS)
}

const soon = () => plan(SOON_MS)

function listen() {
  const source = new EventSource(`${location.origin}/v1/events`)
  source.onmessage = soon
  source.onerror = () => {
    soon()
    // Closed for good: too many clients listen, or the token is wrong. The numbers still come every two seconds.
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, 30000)
  }
}

document.addEventListener("visibilitychange", soon)
if (document.body.dataset.events === "yes") listen()
refresh()
